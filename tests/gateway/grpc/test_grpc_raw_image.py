"""``nonet.v1.RawImage`` gives the picture of the REST route, and refuses alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nonet.runtime.oip.messages import message, methods
from tests.support import handmade_captures
from tests.support.running_server import RunningServer, running

CAPTURE = handmade_captures.npy(handmade_captures.capture())


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("grpc_darkroom") / "models"
    root.mkdir()
    handmade_captures.add_restorer(root, "stand_in")
    settings = {"scheduler": {"lanes": 1}, "repository": {"poll_seconds": 0.0}}
    with running(root, tmp_path_factory.mktemp("grpc_darkroom_server"), settings) as started:
        yield started


def develop(server: RunningServer, **fields: Any) -> Any:
    method = methods("nonet.v1.RawImage")[0]
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(method.path, response_deserializer=method.response.FromString)
        return call(message("nonet.v1.DevelopRequest")(**fields).SerializeToString(), timeout=30)


@pytest.mark.parametrize("uncertainty", [False, True])
def test_both_faces_give_the_same_picture(darkroom: RunningServer, uncertainty: bool) -> None:
    reply = develop(
        darkroom, raw=CAPTURE, cfa="RGGB", black_level=[0, 0, 0, 0], output="png16", uncertainty=uncertainty
    )
    fields = {"cfa": "RGGB", "black_level": "0", "output": "png16", "uncertainty": str(uncertainty).lower()}
    rest = darkroom.http.post("/v1/raw/develop", files={"raw": CAPTURE}, data=fields)
    assert rest.status_code == 200, rest.text
    assert reply.picture == rest.content
    assert reply.content_type == rest.headers["content-type"]
    assert (reply.model, reply.width, reply.height) == ("stand_in", 60, 44)
    assert reply.HasField("std_scale") == uncertainty
    if uncertainty:
        assert reply.std_scale == float(rest.headers["X-Std-Scale"])


def test_a_rendering_says_its_gains(darkroom: RunningServer) -> None:
    reply = develop(darkroom, raw=CAPTURE, cfa="RGGB", render="srgb", white_balance="2,1,1.5", noise=0.0)
    assert list(reply.white_balance) == [2, 1, 1.5]


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "raw"),
        ({"raw": CAPTURE}, grpc.StatusCode.INVALID_ARGUMENT, "cfa"),
        ({"raw": b"rubbish"}, grpc.StatusCode.INVALID_ARGUMENT, "accepted are"),
        ({"raw": CAPTURE[:-5], "cfa": "RGGB"}, grpc.StatusCode.INVALID_ARGUMENT, "5280"),
        ({"raw": CAPTURE, "cfa": "RGGB", "noise": -1}, grpc.StatusCode.INVALID_ARGUMENT, "noise"),
        ({"raw": CAPTURE, "cfa": "RGGB", "model": "nobody"}, grpc.StatusCode.NOT_FOUND, "stand_in"),
        ({"raw": b"x", "width": 20_000, "height": 10_000}, grpc.StatusCode.RESOURCE_EXHAUSTED, "limit"),
        ({"raw": CAPTURE, "cfa": "RGGB", "webhook": "x"}, grpc.StatusCode.INVALID_ARGUMENT, "SubmitDevelop"),
        ({"raw": CAPTURE, "black_level": [float("nan")]}, grpc.StatusCode.INVALID_ARGUMENT, "black_level"),
    ],
)
def test_what_rest_refuses_grpc_refuses(darkroom: RunningServer, fields: Any, status: Any, word: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        develop(darkroom, **fields)
    assert caught.value.code() == status
    assert word in caught.value.details()
