"""Fault 91: what is too much is refused by its headers on the connection itself, which then serves on; each
refusal is in the log and in the metrics; balancers can be told 429."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import handmade_networks
from tests.support.bare_sockets import Wire, infer_bytes
from tests.support.running_server import RunningServer, eventually, running
from tests.support.slow_requests import fresh_value, slow_input

INFER = "/v2/models/slow/infer"
HURRY = {"X-Request-Timeout-Ms": "20"}
LONG = 200_000


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose model takes 0.2 s, so that 20 ms are never enough, and that refuses with 429."""
    root: Path = tmp_path_factory.mktemp("overload") / "models"
    root.mkdir()
    handmade_networks.add_slow(root, "slow", handmade_networks.busy_trips(0.2), batch=0)
    settings = {
        "scheduler": {"lanes": 1, "default_timeout": 300.0},
        "server": {"overload_status": 429},
        "logging": {"access": True},
        "repository": {"poll_seconds": 0.0},
    }
    with running(root, tmp_path_factory.mktemp("overload_server"), settings) as started:
        yield started


def refused(path: str = INFER, length: int = LONG, headers: Mapping[str, str] = HURRY) -> bytes:
    """The head of a request that cannot be answered in time, without its body."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize("pieces", [1, 7], ids=["body in one", "body in pieces"])
def test_case_91_a_connection_serves_on_behind_the_body_of_a_refused_request(
    busy: RunningServer, pieces: int
) -> None:
    served = infer_bytes("slow", slow_input(fresh_value()), {})
    with Wire(busy.http_port) as wire:
        wire.send(refused())
        reply = wire.reply()
        assert reply.status == 429
        assert "deadline" in reply.body.decode()
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.headers["x-request-id"]
        # The body looks like a request, and is none.
        body = (refused() * LONG)[:LONG]
        size = LONG // pieces + 1
        for start in range(0, LONG, size):
            wire.send(body[start : start + size])
        wire.send(served)
        assert wire.reply().status == 200


def test_case_91_pipelined_refusals_are_answered_in_order(busy: RunningServer) -> None:
    served = infer_bytes("slow", slow_input(fresh_value()), {})
    first, last = {**HURRY, "X-Request-Id": "first"}, {**HURRY, "X-Request-Id": "last"}
    with Wire(busy.http_port) as wire:
        wire.send(refused(length=5, headers=first) + b"xxxxx" + served + refused(length=0, headers=last))
        replies = [wire.reply() for _ in range(3)]
        # The last has waited for the one before it, longer than it had.
        assert [reply.status for reply in replies] == [429, 200, 504]
        assert [replies[0].headers["x-request-id"], replies[2].headers["x-request-id"]] == ["first", "last"]


def test_case_91_who_waits_to_be_asked_for_its_body_is_refused_without(busy: RunningServer) -> None:
    with Wire(busy.http_port) as wire:
        wire.send(refused(headers={**HURRY, "Expect": "100-continue"}))
        reply = wire.reply()
        assert reply.status == 429
        assert reply.headers["connection"] == "close"
        assert wire.closed_by_server()


def test_case_91_refusals_are_counted_and_logged(busy: RunningServer) -> None:
    def count() -> float:
        lines = busy.http.get("/metrics").text.splitlines()
        found = [line for line in lines if 'status="429"' in line and "/infer" in line and "_total" in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    before = count()
    with Wire(busy.http_port) as wire:
        wire.send(refused(length=0, headers={**HURRY, "X-Request-Id": "seen-in-the-log"}))
        assert wire.reply().status == 429
    assert count() == before + 1
    eventually(lambda: "seen-in-the-log" in busy.log, "the refusal is in the log")
