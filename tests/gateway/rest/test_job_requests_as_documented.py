"""Requests about jobs: what is not as documented is refused; a server under a path tells its links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bare_sockets import Wire, request_bytes
from tests.support.building_gateway import BUILDINGS, wait_for
from tests.support.capture_gateway import (
    ASYNC,
    CAPTURE,
    DEVELOP,
    SLOW,
    fill_repository,
    settings,
    submit,
    submitted,
)
from tests.support.running_server import RunningServer, assert_refused, running

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("under_a_path") / "models"
    root.mkdir()
    fill_repository(root)
    given = settings() | {"server": {"root_path": "/nonet"}}
    with running(root, tmp_path_factory.mktemp("under_a_path_server"), given) as started:
        yield started


@pytest.fixture(scope="module")
def done(darkroom: RunningServer) -> dict[str, Any]:
    """A job that has succeeded."""
    return wait_for(darkroom, submitted(darkroom), "succeeded")


def test_links_begin_with_the_path_of_the_server(darkroom: RunningServer, done: dict[str, Any]) -> None:
    job = done["id"]
    assert submit(darkroom).headers["Location"].startswith("/nonet/v1/jobs/job_")
    assert done["result"]["file"] == f"/nonet/v1/jobs/{job}/result"
    assert darkroom.http.get(done["result"]["file"]).status_code == 200
    (listed,) = [each for each in darkroom.http.get("/v1/jobs").json()["data"] if each["id"] == job]
    assert listed["result"]["file"] == done["result"]["file"]
    events = darkroom.http.get(f"/nonet/v1/jobs/{job}/events").text
    assert f'"file":"/nonet/v1/jobs/{job}/result"' in events


def test_head_of_what_streams_is_answered_at_once(darkroom: RunningServer, done: dict[str, Any]) -> None:
    long = submitted(darkroom, model=SLOW)
    with Wire(darkroom.http_port) as wire:
        for job, path, kind in (
            (long, "events", "text/event-stream; charset=utf-8"),
            (done["id"], "events", "text/event-stream; charset=utf-8"),
            (done["id"], "result", "image/png"),
        ):
            wire.send(request_bytes("HEAD", f"/v1/jobs/{job}/{path}"))
            head = wire._take_until(b"\r\n\r\n").decode().lower()
            assert head.startswith("http/1.1 200"), head
            assert f"content-type: {kind}" in head
        wire.send(request_bytes("GET", "/v2/health/live"))
        assert wire.reply().json() == {"live": True}
    darkroom.http.delete(f"/v1/jobs/{long}")


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "\xe4"])
def test_a_key_that_is_none_is_refused(darkroom: RunningServer, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1"), "Content-Type": "application/octet-stream"}
    for more in ({}, ASYNC):
        reply = darkroom.http.post(
            DEVELOP, params={"cfa": "RGGB"}, content=CAPTURE, headers={**headers, **more}
        )
        assert_refused(reply, 400, "Idempotency-Key")
    reply = darkroom.http.post(BUILDINGS, content=b"{}", headers=headers | {"Content-Type": "text/csv"})
    assert_refused(reply, 400, "Idempotency-Key")


@pytest.mark.parametrize("seen", ["", "x", "-1", "1.5", "0x1", "99999999", "9" * 30])
def test_an_event_that_is_none_of_the_job_is_refused(
    darkroom: RunningServer, done: dict[str, Any], seen: str
) -> None:
    reply = darkroom.http.get(f"/v1/jobs/{done['id']}/events", headers={"Last-Event-ID": seen})
    assert_refused(reply, 400, "Last-Event-ID")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("after=", 400),
        ("limit=", 422),
        ("state=", 400),
        ("state=queued,", 400),
        ("after=x", 404),
        ("a=1", 422),
    ],
)
def test_a_page_that_cannot_be_is_refused(darkroom: RunningServer, query: str, status: int) -> None:
    assert_refused(darkroom.http.get(f"/v1/jobs?{query}"), status)


def test_an_empty_webhook_is_no_webhook(darkroom: RunningServer) -> None:
    assert_refused(submit(darkroom, webhook=""), 400, "webhook")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Idempotency-Key", ("a", "b")),
        ("X-Request-Timeout-Ms", ("1000", "2000")),
        ("X-Priority", ("0", "1")),
        ("Authorization", ("Bearer a", "Bearer b")),
        ("Content-Type", ("image/png", "application/octet-stream")),
        ("Host", ("test", "evil.example")),
        ("Origin", ("http://evil.example", "http://test")),
    ],
)
def test_a_header_with_two_values_is_refused(
    darkroom: RunningServer, name: str, values: tuple[str, str]
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for value in values)
    head = f"POST {DEVELOP}?cfa=RGGB HTTP/1.1\r\n{lines}Content-Length: {len(CAPTURE)}\r\n\r\n"
    with Wire(darkroom.http_port) as wire:
        wire.send(head.encode() + CAPTURE)
        reply = wire.reply()
    assert reply.status == 400
    assert name.lower() in reply.body.decode().lower()
