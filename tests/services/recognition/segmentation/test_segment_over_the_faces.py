"""Segmentation over HTTP, gRPC and the Open Inference Protocol: the same masks, in the picture's own
pixels."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from nonet.runtime.oip.messages import message
from tests.services.recognition.segmentation.test_run_length import decoded
from tests.support import handmade_networks, handmade_segmenters
from tests.support.running_server import RunningServer, assert_refused, running

PATH = "/v1/segment"


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two segmentation networks of a family, the better one with a background, and a
    classifier."""
    folder = tmp_path_factory.mktemp("segmenting")
    root = folder / "models"
    root.mkdir()
    handmade_segmenters.add_segmenter(root, "both")
    handmade_segmenters.add_segmenter(root, "one", "exclusive", quality={"dice": 0.9})
    handmade_networks.add_classifier(root, "namer", 4, family="names", top1=0.5)
    with running(root, folder / "server", {"repository": {"poll_seconds": 0.0}}) as started:
        yield started


def picture(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Red on the left half, green in the lowest quarter, else black."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[3 * height // 4 :, :, 1] = 255
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(server: RunningServer, data: bytes, accept: str = "*/*", **fields: str) -> httpx.Response:
    return server.http.post(PATH, files={"image": ("picture", data)}, data=fields, headers={"Accept": accept})


def masks(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {each["label"]: decoded(each["rle"]["counts"], *each["rle"]["size"]) for each in answer["masks"]}


def test_masks_in_pixels_of_the_picture(segmenting: RunningServer) -> None:
    reply = segment(segmenting, encoded(picture()), model="both")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json()
    assert list(answer) == ["model", "image", "classes", "masks"]
    assert answer["model"] == "both"
    assert answer["image"] == {"width": 60, "height": 40}
    assert answer["classes"] == ["red", "green"]
    found = masks(answer)
    assert found["red"][:, :28].all()
    assert not found["red"][:, 32:].any()
    assert found["green"][32:].all()
    assert not found["green"][:28].any()
    assert [each["area"] for each in answer["masks"]] == [int(found[name].sum()) for name in ("red", "green")]


def test_the_best_of_the_family_answers_and_its_background_is_no_class(segmenting: RunningServer) -> None:
    for model in ("auto", "colours", "one"):
        answer = segment(segmenting, encoded(picture()), model=model).json()
        assert (answer["model"], answer["classes"]) == ("one", ["red", "green"])
        found = masks(answer)
        assert not (found["red"] & found["green"]).any()


@pytest.mark.parametrize(
    ("turn", "orientation"),
    [(Image.Transpose.ROTATE_90, 6), (Image.Transpose.ROTATE_180, 3), (Image.Transpose.TRANSPOSE, 5)],
)
def test_a_turned_picture_is_marked_as_it_is_shown(
    segmenting: RunningServer, turn: Image.Transpose, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(picture().transpose(turn), exif=exif)
    assert segment(segmenting, stored).json() == segment(segmenting, encoded(picture())).json()


def test_who_accepts_png_gets_an_overlay(segmenting: RunningServer) -> None:
    data = encoded(picture())
    overlay = segment(segmenting, data, "image/png", model="both")
    assert overlay.status_code == 200
    assert overlay.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(overlay.content)) as opened:
        pixels = np.asarray(opened.convert("RGBA"))
    found = masks(segment(segmenting, data, model="both").json())
    np.testing.assert_array_equal(pixels[..., 3] > 0, found["red"] | found["green"])
    only_red = found["red"] & ~found["green"]
    assert len(np.unique(pixels[only_red], axis=0)) == 1
    for accept in ("image/*", "application/json;q=0.5, image/png", "IMAGE/PNG;q=0.3"):
        assert segment(segmenting, data, accept, model="both").content == overlay.content
    assert segment(segmenting, data, output="overlay", model="both").content == overlay.content


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "image/png;q=0, */*", "image/png, application/json"]
)
def test_others_get_json(segmenting: RunningServer, accept: str) -> None:
    assert segment(segmenting, encoded(picture()), accept).json()["model"] == "one"


def test_a_field_goes_before_the_header(segmenting: RunningServer) -> None:
    assert segment(segmenting, encoded(picture()), "image/png", output="masks").json()["model"] == "one"


def test_the_same_in_json_and_alone_and_cached(segmenting: RunningServer) -> None:
    data = encoded(picture((31, 17)))
    first = segment(segmenting, data)
    again = segment(segmenting, data)
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    sent = {"image": base64.b64encode(data).decode()}
    alone = {"content": data, "headers": {"Content-Type": "image/png"}}
    replies = [again, segmenting.http.post(PATH, json=sent), segmenting.http.post(PATH, **alone)]
    assert [reply.json() for reply in replies] == [first.json()] * 3
    assert segment(segmenting, data, "image/png").headers["x-cache"] == "miss"


def test_the_same_over_grpc(segmenting: RunningServer) -> None:
    data = encoded(picture())
    request, reply = message("nonet.v1.SegmentRequest"), message("nonet.v1.SegmentResponse")
    with grpc.insecure_channel(segmenting.grpc_address) as channel:
        call = channel.unary_unary(
            "/nonet.v1.Recognition/Segment",
            request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString,
        )
        found = call(request(image=data, model="both"), timeout=30)
        shown = call(request(image=data, model="both", output="overlay"), timeout=30)
    answer = segment(segmenting, data, model="both").json()
    assert (found.model, found.version, list(found.classes)) == ("both", "1", answer["classes"])
    assert (found.image.width, found.image.height) == (60, 40)
    assert [(each.label, each.area, each.rle.counts, list(each.rle.size)) for each in found.masks] == [
        (each["label"], each["area"], each["rle"]["counts"], each["rle"]["size"]) for each in answer["masks"]
    ]
    assert (shown.overlay, shown.content_type) == (
        segment(segmenting, data, "image/png", model="both").content,
        "image/png",
    )


def test_the_service_is_an_oip_model(segmenting: RunningServer) -> None:
    data = encoded(picture())
    client = triton.InferenceServerClient(segmenting.url.removeprefix("http://"))
    images = triton.InferInput("image", [2], "BYTES")
    images.set_data_from_numpy(np.array([data, data], dtype=object))
    result = client.infer("segment.both", [images])
    texts = [json.loads(text) for text in result.as_numpy("masks")]
    answer = segment(segmenting, data, model="both").json()
    assert texts == [{key: value for key, value in answer.items() if key != "model"}] * 2
    client.close()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20_000, 1), (1, 3000)])
def test_pictures_of_odd_sizes(segmenting: RunningServer, width: int, height: int) -> None:
    answer = segment(segmenting, encoded(Image.new("RGB", (width, height), (255, 0, 0)))).json()
    assert answer["image"] == {"width": width, "height": height}
    assert [(each["label"], each["area"]) for each in answer["masks"]] == [("red", width * height)]


def test_grey_transparent_and_animated_pictures(segmenting: RunningServer) -> None:
    assert segment(segmenting, encoded(Image.new("L", (9, 7), 0))).json()["masks"] == []
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))  # on white, all of it is red and green
    answer = segment(segmenting, encoded(clear), model="both").json()
    assert [each["area"] for each in answer["masks"]] == [64, 64]
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert [each["label"] for each in segment(segmenting, moving).json()["masks"]] == ["red"]


@pytest.mark.parametrize(
    ("data", "fields", "status", "words"),
    [
        (b"no image", {}, 415, ("image",)),
        (b"", {}, 400, ("image", "empty")),
        (encoded(picture())[:90], {}, 400, ("image",)),
        (encoded(picture()), {"model": "namer"}, 404, ("namer",)),
        (encoded(picture()), {"model": "nobody"}, 404, ("nobody",)),
        (encoded(picture()), {"output": "svg"}, 400, ("output", "overlay")),
        (encoded(picture()), {"top_k": "3"}, 422, ("top_k", "output")),
    ],
)
def test_bad_requests_are_answered_clearly(
    segmenting: RunningServer, data: bytes, fields: dict[str, str], status: int, words: tuple[str, ...]
) -> None:
    assert_refused(segment(segmenting, data, **fields), status, *words)


def test_too_little_time_is_said_so(segmenting: RunningServer) -> None:
    large = encoded(Image.effect_noise((3000, 2000), 60).convert("RGB"), "JPEG")
    headers = {"X-Request-Timeout-Ms": "1"}
    reply = segmenting.http.post(PATH, files={"image": ("a", large)}, headers=headers)
    assert reply.status_code in (503, 504)
    assert "model" not in reply.json()


def test_what_it_answers_is_described(segmenting: RunningServer) -> None:
    document = segmenting.http.get("/openapi.json").json()
    content = document["paths"][PATH]["post"]["responses"]["200"]["content"]
    assert list(content) == ["application/json", "image/png"]
    card = next(each for each in segmenting.http.get("/v1/models").json()["data"] if each["id"] == "colours")
    assert card["task"] == "segmentation"
