"""``/v1/raw/develop`` over a real gateway: ways to send a capture, what comes back, what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support import handmade_captures

CAPTURE = handmade_captures.npy(handmade_captures.capture())


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory, gateway_over: Callable[..., Any]) -> httpx.Client:
    """A gateway with one restoration network."""
    root: Path = tmp_path_factory.mktemp("darkroom") / "models"
    root.mkdir()
    handmade_captures.add_restorer(root, "stand_in")
    client: httpx.Client = gateway_over(root).http
    return client


def develop(darkroom: httpx.Client, raw: bytes = CAPTURE, **fields: str) -> httpx.Response:
    return darkroom.post(
        "/v1/raw/develop", files={"raw": ("capture.bin", raw)}, data={"cfa": "RGGB", **fields}
    )


@pytest.mark.parametrize(
    ("output", "kind"),
    [("png", "image/png"), ("png16", "image/png"), ("tiff16", "image/tiff"), ("jpeg", "image/jpeg")],
)
def test_the_picture_comes_back_as_its_content_type_says(darkroom, output, kind) -> None:
    reply = develop(darkroom, output=output)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == kind
    assert handmade_captures.decoded(reply.content).shape == (44, 60, 3)
    for header in ("X-Request-Id", "X-Model-Version", "X-Device", "X-Cache", "X-Batch-Size", "Server-Timing"):
        assert reply.headers[header]


def test_every_way_to_send_a_capture_gives_the_same_picture(darkroom) -> None:
    text = base64.b64encode(CAPTURE).decode()
    how = {"cfa": "RGGB", "black_level": [0, 0, 0, 0], "noise": 2.5}
    texts = {"cfa": "RGGB", "black_level": "0,0,0,0", "noise": "2.5"}
    kind = {"content-type": "application/octet-stream"}
    replies = [
        develop(darkroom, **texts),
        darkroom.post("/v1/raw/develop", json={"raw": text, **how}),
        darkroom.post("/v1/raw/develop", json={"raw": f"data:application/x-npy;base64,{text}", **how}),
        darkroom.post("/v1/raw/develop", content=CAPTURE, params=texts, headers=kind),
        darkroom.post(
            "/v1/raw/develop", files={"raw": (None, text), **{k: (None, v) for k, v in texts.items()}}
        ),
    ]
    assert [reply.status_code for reply in replies] == [200] * 5, [reply.text[:300] for reply in replies]
    assert len({reply.content for reply in replies}) == 1


def test_the_uncertainty_map_says_its_scale(darkroom) -> None:
    reply = develop(darkroom, output="png16", uncertainty="true")
    assert reply.status_code == 200
    stored = handmade_captures.decoded(reply.content) * float(reply.headers["X-Std-Scale"])
    assert 0.002 * 65535 < stored.mean() < 0.012 * 65535
    assert "X-Std-Scale" not in develop(darkroom, output="png16").headers


def test_a_picture_says_its_white_balance_and_the_noise_found(darkroom) -> None:
    reply = develop(darkroom, render="srgb", white_balance="2,1,1.5")
    assert [float(gain) for gain in reply.headers["X-White-Balance"].split(",")] == [2, 1, 1.5]
    assert float(reply.headers["X-Noise-Sigma"]) < 2


def test_a_camera_file_becomes_an_upright_picture(darkroom) -> None:
    pytest.importorskip("rawpy")
    mosaic = handmade_captures.capture(44, 60, "GBRG") // 8 + 512
    reply = darkroom.post(
        "/v1/raw/develop", files={"raw": handmade_captures.dng(mosaic, "GBRG", orientation=6)}
    )
    assert reply.status_code == 200, reply.text
    upright = handmade_captures.decoded(reply.content)
    assert upright.shape == (60, 44, 3)
    flat = darkroom.post("/v1/raw/develop", files={"raw": handmade_captures.dng(mosaic, "GBRG")})
    assert np.array_equal(upright, np.rot90(handmade_captures.decoded(flat.content), 3))


def test_an_equal_request_comes_from_the_cache_and_another_parameter_does_not(darkroom) -> None:
    first = develop(darkroom, noise="7")
    assert first.headers["X-Cache"] == "miss"
    again = develop(darkroom, noise="7")
    assert again.headers["X-Cache"] == "hit"
    assert again.content == first.content
    assert develop(darkroom, noise="7", output="jpeg").headers["X-Cache"] == "miss"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"output": "gif"}, 400, "output"),
        ({"noise": "loud"}, 400, "noise"),
        ({"black_level": "70000"}, 400, "white_level"),
        ({"model": "nobody"}, 404, "model"),
        ({"model": ""}, 400, "model"),
        ({"colour": "red"}, 422, "colour"),
        ({"white_balance": "x" * 1000}, 422, "white_balance"),
    ],
)
def test_a_wrong_field_is_refused_by_name(darkroom, fields, status, param) -> None:
    reply = develop(darkroom, **fields)
    assert reply.status_code == status, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"raw": 5},
        {"raw": "!"},
        {"raw": "http://127.0.0.1/x.dng"},
        {"raw": ""},
        [],
        {"raw": "AAAA", "cfa": {}},
    ],
)
def test_a_json_body_of_the_wrong_form_is_refused(darkroom, body) -> None:
    reply = darkroom.post("/v1/raw/develop", json=body)
    assert reply.status_code in (400, 422), reply.text


def test_content_types_that_carry_no_capture_are_415_and_other_verbs_405(darkroom) -> None:
    assert (
        darkroom.post("/v1/raw/develop", content=b"x", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    reply = darkroom.get("/v1/raw/develop")
    assert reply.status_code == 405
    assert "POST" in reply.headers["Allow"]


def test_a_deadline_too_short_is_refused(darkroom) -> None:
    reply = darkroom.post(
        "/v1/raw/develop",
        files={"raw": handmade_captures.npy(np.zeros((1200, 1600), np.uint16))},
        data={"cfa": "RGGB"},
        headers={"X-Request-Timeout-Ms": "1"},
    )
    assert reply.status_code in (503, 504), reply.text


def test_the_service_is_an_open_inference_model(darkroom) -> None:
    """What the task route returns is the model's own first output."""
    meta = darkroom.get("/v2/models/develop.stand_in").json()
    assert [port["name"] for port in meta["inputs"] + meta["outputs"]] == ["raw", "picture", "details"]
    payload = len(CAPTURE).to_bytes(4, "little") + CAPTURE
    entry = {
        "name": "raw",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(payload)},
    }
    document = {
        "inputs": [entry],
        "outputs": [{"name": "picture", "parameters": {"binary_data": True}}],
        "parameters": {"cfa": "RGGB", "output": "tiff16"},
    }
    head = json.dumps(document).encode()
    reply = darkroom.post(
        "/v2/models/develop.stand_in/infer",
        content=head + payload,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert reply.status_code == 200, reply.text
    raw = reply.content[int(reply.headers["Inference-Header-Content-Length"]) :]
    assert raw[4:] == develop(darkroom, output="tiff16").content


def test_the_description_names_every_field_and_picture(darkroom) -> None:
    operation = darkroom.get("/openapi.json").json()["paths"]["/v1/raw/develop"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {"image/png", "image/tiff", "image/jpeg"}
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"raw", "cfa", "black_level", "white_level", "output", "noise", "render", "uncertainty"} <= set(
        form["properties"]
    )


def test_why_a_picture_came_from_where_it_did_is_in_a_header(darkroom) -> None:
    reply = darkroom.post(
        "/v1/raw/develop?explain=true", files={"raw": ("capture.bin", CAPTURE)}, data={"cfa": "RGGB"}
    )
    assert reply.content == develop(darkroom).content
    assert "X-Placement" not in develop(darkroom).headers
    placement = json.loads(reply.headers["X-Placement"])
    assert (placement["model"], placement["device"]) == ("stand_in", reply.headers["X-Device"])
