"""Cases 70 and 77: uploads at the same time are bounded by what they take, and equal ones are one job."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import httpx
import pytest

from nonet.runtime.oip.messages import message
from tests.support import capture_gateway
from tests.support.bare_sockets import Wire
from tests.support.building_gateway import BUILDINGS, job_of, state_folder, toy_settings, upload, wait_for
from tests.support.running_server import RunningServer, assert_refused, eventually

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]


def at_once(count: int, server: RunningServer, headers: dict[str, str]) -> list[httpx.Response]:
    """The replies to ``count`` equal submits that are sent together."""
    replies: list[httpx.Response] = []
    together = threading.Barrier(count)
    body = json.dumps(upload("quick_home"))

    def submit() -> None:
        with httpx.Client(base_url=server.url, timeout=240) as http:
            together.wait()
            replies.append(
                http.post(BUILDINGS, content=body, headers={"Content-Type": "application/json", **headers})
            )

    threads = [threading.Thread(target=submit) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


@pytest.mark.parametrize("count", [20, 60])
def test_case_77_many_equal_submits_at_once_are_one_job(
    start_server: Start, own_repository: Path, count: int
) -> None:
    server = start_server(own_repository, toy_settings())
    replies = at_once(count, server, {"Idempotency-Key": "the-same"})
    assert {reply.status_code for reply in replies} == {202}, [reply.text for reply in replies]
    (job,) = {reply.json()["job"]["id"] for reply in replies}
    assert sum("Idempotency-Replayed" not in reply.headers for reply in replies) == 1
    wait_for(server, job, "succeeded")
    listed = server.http.get("/v1/jobs").json()["data"]
    assert [each["id"] for each in listed] == [job]
    assert list((state_folder(server) / "incoming").iterdir()) == []
    eventually(lambda: not any((state_folder(server) / "work").iterdir()), "no folder is left")
    assert job_of(server, job)["attempts"] == 1


LINE = b"a,m1,-50\n"
SMALL, LARGE = 2_000, 49_000


def table(size: int) -> bytes:
    """A CSV of so many bytes."""
    head = b"scan,bssid,rssi\n"
    return (head + LINE * ((size - len(head)) // len(LINE))).ljust(size, b"\n")


class Halted:
    """Uploads of which all but the last bytes were sent; at the end of the block their callers leave."""

    def __init__(self, server: RunningServer, size: int) -> None:
        self._port = server.http_port
        self._size = size
        self._wires: list[Wire] = []
        fields = urlencode({"building": "quick_home", "labelled": '{"scan": "a", "floor": "B1"}'})
        self._head = (
            f"POST {BUILDINGS}?{fields} HTTP/1.1\r\nHost: test\r\nContent-Type: text/csv\r\n"
            f"Content-Length: {size}\r\n\r\n"
        ).encode()

    def add(self) -> None:
        wire = Wire(self._port, timeout=120.0)
        self._wires.append(wire)
        wire.send(self._head + table(self._size)[:-10])

    def __enter__(self) -> Halted:
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self._wires:
            wire.close()

    def finish(self) -> list[int]:
        """Send the rest; the status of each."""
        for wire in self._wires:
            wire.try_send(table(self._size)[-10:])
        return [wire.reply().status for wire in self._wires]


def refusal(server: RunningServer, size: int) -> str:
    """Why a whole upload of so many bytes is refused: the code. One that is let in names a scan that is not
    there, so that nothing comes of it."""
    fields = {"building": "quick_home", "labelled": '{"scan": "nobody", "floor": "B1"}'}
    headers = {"Content-Type": "text/csv"}
    reply = server.http.post(BUILDINGS, params=fields, content=table(size), headers=headers)
    code: str = reply.json()["error"]["code"]
    assert_refused(reply, 400 if code == "SCAN_NOT_FOUND" else 503)
    return code


def fill(server: RunningServer, uploads: Halted, size: int, code: str) -> None:
    """Add halted uploads until one more of ``size`` is refused for them with ``code``."""
    for _ in range(1000):
        if refusal(server, size) == code:
            return
        uploads.add()
    raise AssertionError("a thousand uploads at once are let in")


def test_case_70_uploads_at_once_may_take_so_much_of_the_disk(
    start_server: Start, own_repository: Path
) -> None:
    """As much as sixteen of the largest: then large ones are refused, small ones fit in, and what has begun
    is finished."""
    server = start_server(own_repository, toy_settings(max_upload_bytes=50_000))
    with Halted(server, LARGE) as uploads:
        fill(server, uploads, LARGE, "UPLOADS_OVER_BUDGET")
        assert refusal(server, SMALL) == "SCAN_NOT_FOUND"
        statuses = uploads.finish()
        assert statuses.count(202) == 16
        assert set(statuses) <= {202, 503}
    assert refusal(server, LARGE) == "SCAN_NOT_FOUND"
    with Halted(server, LARGE) as left:
        fill(server, left, LARGE, "UPLOADS_OVER_BUDGET")
    eventually(lambda: refusal(server, LARGE) == "SCAN_NOT_FOUND", "those who left have made room")


def test_case_70_uploads_at_once_are_so_many(start_server: Start, own_repository: Path) -> None:
    server = start_server(own_repository, toy_settings())
    with Halted(server, SMALL) as uploads:
        for _ in range(250):
            uploads.add()
        fill(server, uploads, SMALL, "UNAVAILABLE")
    eventually(lambda: refusal(server, SMALL) == "SCAN_NOT_FOUND", "those who left have made room")


SUBMIT = "/nonet.v1.RawImage/SubmitDevelop"
FIT = "/nonet.v1.FloorIdentification/Fit"


def piece(data: bytes) -> bytes:
    """A message of a capture's upload."""
    return bytes(message("nonet.v1.DevelopRequest")(raw=data, cfa="RGGB").SerializeToString())


def failure(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Status and code of the RPC that ``call`` makes, which must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), dict(caught.value.trailing_metadata())["nonet-error-code"]


class HaltedCalls:
    """Uploads over gRPC of which all but the last bytes were sent; they are no captures, so make no job."""

    def __init__(self, channel: grpc.Channel, size: int) -> None:
        self._submit = channel.stream_unary(SUBMIT)
        self._size = size
        self._go_on = threading.Event()
        self._calls: list[Any] = []

    def _pieces(self) -> Iterator[bytes]:
        yield piece(bytes(self._size - 10))
        self._go_on.wait()
        yield piece(bytes(10))

    def fill(self) -> None:
        """Add calls until the disk has no room for one more."""
        for _ in range(100):
            status, code = failure(lambda: self._submit(iter([piece(bytes(self._size))]), timeout=60))
            if code == "UPLOADS_OVER_BUDGET":
                assert status is grpc.StatusCode.UNAVAILABLE
                return
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            self._calls.append(self._submit.future(self._pieces()))
        raise AssertionError("a hundred uploads at once are let in")

    def finish(self) -> list[grpc.StatusCode]:
        """Send the rest; the status of each."""
        self._go_on.set()
        return [call.exception(timeout=120).code() for call in self._calls]

    def leave(self) -> None:
        for call in self._calls:
            call.cancel()
        self._go_on.set()


def test_case_70_uploads_over_both_faces_share_the_disk(start_server: Start, own_repository: Path) -> None:
    settings = capture_gateway.settings(max_upload_bytes=50_000)
    server = start_server(capture_gateway.fill_repository(own_repository), settings)
    incoming = state_folder(server) / "incoming"
    fit = message("nonet.v1.FitRequest")(
        building="quick_home", file=table(LARGE), labelled_scan="nobody", labelled_floor="B1"
    )
    with grpc.insecure_channel(server.grpc_address) as channel:
        calls = HaltedCalls(channel, LARGE)
        calls.fill()
        assert sum(file.stat().st_size for file in incoming.iterdir()) <= 16 * 50_000
        over = (grpc.StatusCode.UNAVAILABLE, "UPLOADS_OVER_BUDGET")
        assert failure(lambda: channel.unary_unary(FIT)(fit.SerializeToString(), timeout=60)) == over
        whole = capture_gateway.submit(server, bytes(LARGE))
        body = {"raw": base64.b64encode(bytes(LARGE)).decode(), "cfa": "RGGB"}
        as_json = server.http.post(capture_gateway.DEVELOP, json=body, headers=capture_gateway.ASYNC)
        for reply in (whole, as_json):
            assert_refused(reply, 503)
            assert reply.json()["error"]["code"] == over[1]
        assert capture_gateway.submit(server).status_code == 202
        assert calls.finish().count(grpc.StatusCode.INVALID_ARGUMENT) == 16
        left = HaltedCalls(channel, LARGE)
        left.fill()
        left.leave()
        eventually(
            lambda: capture_gateway.submit(server, bytes(LARGE)).status_code == 415,
            "those who left have made room",
        )
    eventually(lambda: not any(incoming.iterdir()), "their files are gone")


def test_case_70_an_upload_in_pieces_has_one_timeout(start_server: Start, own_repository: Path) -> None:
    settings = capture_gateway.settings() | {"server": {"body_timeout": 1.5}}
    server = start_server(capture_gateway.fill_repository(own_repository), settings)

    def drip() -> Iterator[bytes]:
        for _ in range(300):
            yield piece(b"x")
            time.sleep(0.1)

    with grpc.insecure_channel(server.grpc_address) as channel:
        status, _ = failure(lambda: channel.stream_unary(SUBMIT)(drip(), timeout=120))
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: not any((state_folder(server) / "incoming").iterdir()), "the file is gone")
