"""``RawImage.SubmitDevelop`` and ``Jobs.ReadResult`` give the job and the picture of the REST routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nonet.runtime.oip.messages import JOBS, message, methods
from tests.support import handmade_captures
from tests.support.building_gateway import wait_for
from tests.support.capture_gateway import (
    CAPTURE,
    LONG,
    QUICK,
    SLOW,
    developed,
    fill_repository,
    result_of,
    settings,
    submit,
)
from tests.support.running_server import RunningServer, running

pytestmark = pytest.mark.timeout(180)

METHODS = {method.name: method for name in ("nonet.v1.RawImage", JOBS) for method in methods(name)}
REQUEST = message("nonet.v1.DevelopRequest")
GRPC = grpc.StatusCode


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("grpc_jobs_darkroom") / "models"
    root.mkdir()
    fill_repository(root)
    given = settings(max_upload_bytes=1 << 20)
    given["grpc"] = {"max_message_bytes": 200_000}
    with running(root, tmp_path_factory.mktemp("grpc_jobs_darkroom_server"), given) as started:
        yield started


@pytest.fixture
def channel(darkroom: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(darkroom.grpc_address) as opened:
        yield opened


def submit_develop(channel: grpc.Channel, *parts: dict[str, Any], key: str = "") -> Any:
    """The answer to a submit in several messages."""
    method = METHODS["SubmitDevelop"]
    call = channel.stream_unary(method.path, response_deserializer=method.response.FromString)
    metadata = [("idempotency-key", key)] if key else []
    return call(iter([REQUEST(**part).SerializeToString() for part in parts]), timeout=60, metadata=metadata)


def read_result(channel: grpc.Channel, job: str) -> list[bytes]:
    method = METHODS["ReadResult"]
    call = channel.unary_stream(method.path, response_deserializer=method.response.FromString)
    request = method.request(id=job).SerializeToString()
    return [piece.data for piece in call(request, timeout=60)]


def watch(channel: grpc.Channel, job: str) -> list[Any]:
    method = METHODS["WatchJob"]
    call = channel.unary_stream(method.path, response_deserializer=method.response.FromString)
    return list(call(method.request(id=job).SerializeToString(), timeout=120))


@pytest.mark.parametrize("uncertainty", [False, True])
def test_both_faces_give_the_same_picture(
    darkroom: RunningServer, channel: grpc.Channel, uncertainty: bool
) -> None:
    part = {"raw": CAPTURE, "cfa": "RGGB", "model": QUICK, "output": "png16", "uncertainty": uncertainty}
    reply = submit_develop(channel, part)
    assert (reply.job.kind, reply.job.state, reply.replayed) == ("raw.develop", "queued", False)
    ended = watch(channel, reply.job.id)[-1]
    assert ended.state == "succeeded"
    picture = b"".join(read_result(channel, reply.job.id))
    fields = {"output": "png16", "uncertainty": str(uncertainty).lower()}
    assert picture == developed(darkroom, **fields).content == result_of(darkroom, reply.job.id).content
    result = json.loads(ended.result_json)
    assert (result["model"], result["width"], result["bytes"]) == (QUICK, 60, len(picture))


def test_a_capture_larger_than_a_message_comes_in_pieces(
    darkroom: RunningServer, channel: grpc.Channel
) -> None:
    raw = LONG
    assert len(raw) > 200_000
    first = {"cfa": "RGGB", "model": SLOW, "output": "tiff16"}
    pieces = [{"raw": raw[start : start + 100_000]} for start in range(0, len(raw), 100_000)]
    job = submit_develop(channel, first, *pieces).job.id
    seen = watch(channel, job)
    progress = [each.progress for each in seen]
    assert progress == sorted(progress)
    assert any(each.phase == "developing" for each in seen)
    got = read_result(channel, job)
    assert b"".join(got) == developed(darkroom, raw, output="tiff16").content
    with pytest.raises(grpc.RpcError) as caught:
        submit_develop(channel, first, *pieces * 4)
    assert caught.value.code() is GRPC.RESOURCE_EXHAUSTED
    assert "1048576" in caught.value.details()


def test_equal_submits_are_one_job_over_both_faces(darkroom: RunningServer, channel: grpc.Channel) -> None:
    part = {"raw": CAPTURE, "cfa": "RGGB", "model": QUICK}
    first = submit_develop(channel, part, key="k1")
    again = submit_develop(
        channel, {**part, "raw": b""}, {"raw": CAPTURE[:99]}, {"raw": CAPTURE[99:]}, key="k1"
    )
    assert (again.job.id, again.replayed) == (first.job.id, True)
    rest = submit(darkroom, key="k1")
    assert rest.json()["job"]["id"] == first.job.id
    assert rest.headers["Idempotency-Replayed"] == "true"
    with pytest.raises(grpc.RpcError) as caught:
        submit_develop(channel, {**part, "noise": 9.0}, key="k1")
    assert caught.value.code() is GRPC.ABORTED


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({}, GRPC.INVALID_ARGUMENT, "raw"),
        ({"raw": CAPTURE}, GRPC.INVALID_ARGUMENT, "cfa"),
        ({"raw": b"rubbish"}, GRPC.INVALID_ARGUMENT, "accepted are"),
        ({"raw": CAPTURE[:-5], "cfa": "RGGB"}, GRPC.INVALID_ARGUMENT, "5280"),
        ({"raw": CAPTURE, "cfa": "RGGB", "noise": -1}, GRPC.INVALID_ARGUMENT, "noise"),
        ({"raw": CAPTURE, "cfa": "RGGB", "model": "nobody"}, GRPC.NOT_FOUND, "stand_in"),
        ({"raw": CAPTURE, "cfa": "RGGB", "webhook": "http://a/b"}, GRPC.INVALID_ARGUMENT, "webhook"),
        ({"raw": b"xx", "cfa": "RGGB", "width": 20_000, "height": 10_000}, GRPC.RESOURCE_EXHAUSTED, "limit"),
    ],
)
def test_what_develop_refuses_is_refused_at_the_submit(
    channel: grpc.Channel, fields: Any, status: Any, word: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        submit_develop(channel, fields)
    assert caught.value.code() is status, caught.value.details()
    assert word in caught.value.details()


def test_a_submit_without_a_message_and_one_that_is_none_are_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        submit_develop(channel)
    assert caught.value.code() is GRPC.INVALID_ARGUMENT
    call = channel.stream_unary(METHODS["SubmitDevelop"].path)
    with pytest.raises(grpc.RpcError) as caught:
        call(iter([b"\xff\xff\xff"]), timeout=30)
    assert caught.value.code() is GRPC.INVALID_ARGUMENT


def test_messages_without_a_piece_of_the_capture_are_refused(channel: grpc.Channel) -> None:
    first = {"cfa": "RGGB", "model": QUICK}
    with pytest.raises(grpc.RpcError) as caught:
        submit_develop(channel, first, {"raw": CAPTURE[:99]}, {}, {"raw": CAPTURE[99:]})
    assert caught.value.code() is GRPC.INVALID_ARGUMENT
    assert "every message" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        submit_develop(channel, first)
    assert dict(caught.value.trailing_metadata())["nonet-error-code"] == "RAW_EMPTY"


def test_a_result_that_is_not_there_has_its_status(darkroom: RunningServer, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        read_result(channel, "job_1")
    assert caught.value.code() is GRPC.NOT_FOUND
    job = submit_develop(
        channel, {"raw": LONG[:150_000], "cfa": "RGGB", "model": SLOW}, {"raw": LONG[150_000:]}
    )
    with pytest.raises(grpc.RpcError) as caught:
        read_result(channel, job.job.id)
    assert caught.value.code() is GRPC.ABORTED
    assert dict(caught.value.trailing_metadata())["nonet-error-code"] == "JOB_NOT_ENDED"
    darkroom.http.delete(f"/v1/jobs/{job.job.id}")
    wait_for(darkroom, job.job.id, "cancelled")
    with pytest.raises(grpc.RpcError) as caught:
        read_result(channel, job.job.id)
    assert dict(caught.value.trailing_metadata())["nonet-error-code"] == "JOB_NOT_SUCCEEDED"


def test_a_picture_of_several_pieces_is_whole(darkroom: RunningServer, channel: grpc.Channel) -> None:
    raw = handmade_captures.npy(handmade_captures.capture(400, 500))
    parts = [{"cfa": "RGGB", "model": QUICK, "output": "tiff16"}]
    parts += [{"raw": raw[start : start + 150_000]} for start in range(0, len(raw), 150_000)]
    job = submit_develop(channel, *parts).job.id
    wait_for(darkroom, job, "succeeded")
    pieces = read_result(channel, job)
    assert len(pieces) > 1
    assert b"".join(pieces) == developed(darkroom, raw, output="tiff16").content
