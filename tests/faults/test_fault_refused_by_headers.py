"""A request that its headers already decide is answered before its body is sent, with and without
``Expect: 100-continue``; one that they do not decide is asked to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import handmade_networks
from tests.support.bare_sockets import Reply, Wire, infer_bytes
from tests.support.running_server import RunningServer, eventually, running
from tests.support.slow_requests import fresh_value, slow_input

KEY = {"Authorization": "Bearer key-of-plenty"}
INFER = "/v2/models/slow/infer"
LONG = 200_000
EXPECTATION = {"Expect": "100-continue"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with keys, quotas, one lane and a queue of two."""
    root: Path = tmp_path_factory.mktemp("refusals") / "models"
    root.mkdir()
    handmade_networks.add_slow(root, "slow", handmade_networks.busy_trips(0.2), batch=0)
    handmade_networks.add_classifier(root, "shop_small", 4, family="shop", top1=0.6)
    settings = {
        "scheduler": {"lanes": 1, "max_queue": 2, "default_timeout": 300.0},
        "repository": {"poll_seconds": 0.0},
        "server": {"max_body_bytes": 1 << 20},
        "auth": {
            "keys": {"plenty": "key-of-plenty", "spent": "key-of-spent"},
            "requests_per_second": 0.001,
            "burst": 200,
        },
    }
    with running(root, tmp_path_factory.mktemp("refusals_server"), settings) as started:
        yield started


def head(path: str, headers: Mapping[str, str], length: int = LONG) -> bytes:
    """A head whose body does not follow."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in ({"Content-Type": "image/png"} | dict(headers)).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


OCTETS = {"Content-Type": "application/octet-stream"}
DECIDED = {
    "no key": ("/v1/classify", {"Authorization": "Basic x"}, LONG, 401),
    "bad key": (INFER, OCTETS | {"Authorization": "Bearer nobody"}, LONG, 401),
    "quota": (INFER, OCTETS | {"Authorization": "Bearer key-of-spent"}, LONG, 429),
    "quota of a task": ("/v1/classify", {"Authorization": "Bearer key-of-spent"}, LONG, 429),
    "deadline too short": (INFER, OCTETS | KEY | {"X-Request-Timeout-Ms": "20"}, LONG, 503),
    "deadline passed": ("/v1/classify", KEY | {"X-Request-Timeout-Ms": "0"}, LONG, 504),
    "too long": ("/v1/classify", KEY, 2 << 20, 413),
    "too long for a tensor": (INFER, OCTETS | KEY, 1 << 40, 413),
    "unknown model": ("/v2/models/nobody/infer", OCTETS | KEY, LONG, 404),
    "unknown version": ("/v2/models/slow/versions/9/infer", OCTETS | KEY, LONG, 404),
    "unknown route": ("/v1/nowhere", KEY, LONG, 404),
    "media type": ("/v1/classify", KEY | {"Content-Type": "text/html"}, LONG, 415),
    "field of the query": ("/v1/classify?topk=1", KEY, LONG, 422),
    "page of another site": ("/v1/classify", KEY | {"Origin": "http://evil.example"}, LONG, 403),
    "two names": ("/v1/classify", KEY | {"Host": "evil.example"}, LONG, 400),
}


@pytest.mark.parametrize("expectation", [{}, EXPECTATION], ids=["at once", "100-continue"])
@pytest.mark.parametrize("why", DECIDED)
def test_what_the_headers_decide_is_answered_before_the_body(
    served: RunningServer, why: str, expectation: dict[str, str]
) -> None:
    path, headers, length, status = DECIDED[why]
    if "quota" in why:
        spent = {"Authorization": "Bearer key-of-spent"}
        while served.http.get("/v1/models", headers=spent).status_code != 429:
            pass
    with Wire(served.http_port) as wire:
        wire.send(head(path, headers | expectation, length))
        reply = wire.reply()
        assert reply.status == status, reply.body
        assert reply.json()
        wire.try_send(b"x" * 1000)  # a client that has not read the answer yet does no harm
    assert served.http.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("expectation", [{}, EXPECTATION], ids=["at once", "100-continue"])
def test_a_full_queue_is_told_before_the_body(served: RunningServer, expectation: dict[str, str]) -> None:
    with contextlib.ExitStack() as wires:
        waiting: list[Wire] = []
        refused: list[Reply] = []

        def tell(data: bytes) -> Wire:
            wire = wires.enter_context(Wire(served.http_port))
            wire.send(data)
            return wire

        def told() -> bool:
            """Whether the answer came; where the queue had room again the request waits for its body."""
            if served.pending("slow") < 2:
                waiting.append(tell(infer_bytes("slow", slow_input(fresh_value()), KEY)))
                return False
            wire = tell(head(INFER, OCTETS | KEY | expectation))
            if wire.has_answer(0.3) and (reply := wire.reply()).status != 100:
                refused.append(reply)
            return bool(refused)

        eventually(told, "a request behind a full queue is refused")
        assert refused[0].status == 503
        assert "full" in refused[0].body.decode()
        assert int(refused[0].headers["retry-after"]) >= 1
        assert {each.reply().status for each in waiting} <= {200, 503}


def test_a_request_that_may_go_on_is_asked_to(served: RunningServer) -> None:
    body = infer_bytes("slow", slow_input(fresh_value()), KEY).partition(b"\r\n\r\n")[2]
    with Wire(served.http_port) as wire:
        wire.send(head(INFER, KEY | EXPECTATION | {"Content-Type": "application/json"}, len(body)))
        assert wire.reply().status == 100
        wire.send(body)
        assert wire.reply().status == 200
