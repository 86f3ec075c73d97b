"""Detection over every face of a real server, by a network whose answers are known."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from nonet.runtime.oip.messages import message
from tests.support.handmade_detectors import LABELS, PREPROCESSING, SIDE, add_colour_detector
from tests.support.handmade_networks import Port, add_model, add_scaled, network
from tests.support.running_server import RunningServer, assert_refused, running

BLACK, RED, BLUE = (0, 0, 0), (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("detector") / "models"
    root.mkdir()
    add_colour_detector(root, "colours", family="finders", quality={"ap50": 0.4})
    add_colour_detector(root, "colours_too", family="finders", quality={"ap50": 0.7})
    add_scaled(root, "plain", 2.0, 1)
    settings = {"repository": {"poll_seconds": 0.0}, "scheduler": {"lanes": 1}}
    with running(root, tmp_path_factory.mktemp("server"), settings) as started:
        yield started


def picture(
    width: int = 128, height: int = 64, *patches: tuple[tuple[int, int, int, int], Any]
) -> Image.Image:
    """Black, with coloured rectangles."""
    image = Image.new("RGB", (width, height), BLACK)
    for box, colour in patches:
        image.paste(colour, box)
    return image


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


TWO = picture(128, 64, ((32, 0, 64, 32), RED), ((96, 32, 128, 64), (0, 0, 200)))


def detect(server: RunningServer, data: bytes, **fields: Any) -> httpx.Response:
    return server.http.post("/v1/detect", files={"image": ("image.bin", data)}, data=fields)


def refusal(answer: httpx.Response, status: int) -> str:
    """The field that a refusal names."""
    assert_refused(answer, status)
    param: str = answer.json()["error"]["param"]
    return param


def found(server: RunningServer, data: bytes, **fields: Any) -> list[tuple[str, list[int]]]:
    answer = detect(server, data, **fields)
    assert answer.status_code == 200, answer.text
    return sorted(
        (each["label"], [round(side) for side in each["box"]]) for each in answer.json()["detections"]
    )


def test_boxes_are_in_pixels_of_the_picture(detector: RunningServer) -> None:
    answer = detect(detector, encode(TWO), model="colours").json()
    assert answer["model"] == "colours"
    assert answer["image"] == {"width": 128, "height": 64}
    assert [each["label"] for each in answer["detections"]] == ["red", "blue"]
    first, second = answer["detections"]
    assert first["box"] == pytest.approx([32, 0, 64, 32], abs=0.01)
    assert second["box"] == pytest.approx([96, 32, 128, 64], abs=0.01)
    assert 0.7 < first["score"] <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_on_the_picture_as_it_is_shown(detector: RunningServer, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = TWO if turn is None else TWO.transpose(turn)
    data = encode(stored, exif=exif)
    assert detect(detector, data).json()["image"] == {"width": 128, "height": 64}
    assert found(detector, data) == [("blue", [96, 32, 128, 64]), ("red", [32, 0, 64, 32])]


def test_the_best_of_a_family_answers_and_a_name_is_taken_at_its_word(detector: RunningServer) -> None:
    assert detect(detector, encode(TWO)).json()["model"] == "colours_too"
    assert detect(detector, encode(TWO), model="finders").json()["model"] == "colours_too"
    assert detect(detector, encode(TWO), model="colours").json()["model"] == "colours"


def test_least_score_and_number_of_objects(detector: RunningServer) -> None:
    dim = picture(64, 64, ((0, 0, 16, 16), (255, 0, 0)), ((48, 48, 64, 64), (0, 90, 0)))
    assert [label for label, _ in found(detector, encode(dim), score_threshold=0.9)] == ["red"]
    assert len(found(detector, encode(dim))) == 2
    assert [label for label, _ in found(detector, encode(dim), max_detections=1)] == ["red"]
    assert found(detector, encode(picture()), score_threshold=0) == []


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("score_threshold", "1.5", 400),
        ("score_threshold", "-0.1", 400),
        ("score_threshold", "nan", 400),
        ("score_threshold", "much", 422),
        ("max_detections", "0", 400),
        ("max_detections", "101", 400),
        ("max_detections", "2.5", 422),
        ("overlap", "0.5", 422),
    ],
)
def test_fields_out_of_range_are_named(detector: RunningServer, name: str, value: str, status: int) -> None:
    answer = detect(detector, encode(TWO), **{name: value})
    assert refusal(answer, status) == name


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000), (3, 5000)])
def test_the_strangest_shapes_are_answered_inside_the_picture(
    detector: RunningServer, size: tuple[int, int]
) -> None:
    answer = detect(detector, encode(Image.new("RGB", size, RED)), score_threshold=0.01).json()
    assert answer["image"] == {"width": size[0], "height": size[1]}
    for each in answer["detections"]:
        x1, y1, x2, y2 = each["box"]
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_other_colour_modes_are_answered(detector: RunningServer, mode: str) -> None:
    white = picture(64, 64, ((0, 0, 16, 16), (255, 255, 255))).convert(mode)
    labels = {label for label, box in found(detector, encode(white)) if box == [0, 0, 16, 16]}
    assert labels == set(LABELS)


def test_the_first_frame_of_an_animation_is_looked_at(detector: RunningServer) -> None:
    frames = [picture(64, 64, ((0, 0, 16, 16), RED)), picture(64, 64, ((0, 0, 16, 16), BLUE))]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert found(detector, data) == [("red", [0, 0, 16, 16])]


def test_what_is_no_picture_and_what_is_no_detector_are_refused(detector: RunningServer) -> None:
    assert refusal(detect(detector, b"not a picture"), 415) == "image"
    assert refusal(detect(detector, encode(TWO)[:200]), 400) == "image"
    assert refusal(detect(detector, b""), 400) == "image"
    assert refusal(detect(detector, encode(TWO), model="plain"), 404) == "model"
    assert refusal(detect(detector, encode(TWO), model="nobody"), 404) == "model"


def test_json_bare_bytes_and_grpc_say_the_same(detector: RunningServer) -> None:
    data = encode(TWO)
    form = detect(detector, data, model="colours").json()
    text = base64.b64encode(data).decode()
    assert detector.http.post("/v1/detect", json={"image": text, "model": "colours"}).json() == form
    bare = detector.http.post("/v1/detect?model=colours", content=data, headers={"Content-Type": "image/png"})
    assert bare.json() == form
    ask = message("nonet.v1.DetectRequest")
    with grpc.insecure_channel(f"127.0.0.1:{detector.grpc_port}") as channel:
        call = channel.unary_unary(
            "/nonet.v1.Recognition/Detect",
            request_serializer=ask.SerializeToString,
            response_deserializer=message("nonet.v1.DetectResponse").FromString,
        )
        reply = call(ask(image=data, model="colours"))
        assert (reply.image.width, reply.image.height) == (128, 64)
        assert [each.label for each in reply.detections] == ["red", "blue"]
        assert list(reply.detections[0].box) == form["detections"][0]["box"]
        assert len(call(ask(image=data, max_detections=1)).detections) == 1
        with pytest.raises(grpc.RpcError) as refused:
            call(ask(image=data, score_threshold=2))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_second_time_comes_from_the_cache_whatever_is_left_out(detector: RunningServer) -> None:
    data = encode(picture(64, 64, ((0, 16, 16, 32), BLUE)))
    assert detect(detector, data).headers["X-Cache"] == "miss"
    again = detect(detector, data, score_threshold=0.99)
    assert again.headers["X-Cache"] == "hit"
    assert again.json()["detections"] != []
    assert detect(detector, data, max_detections=1).headers["X-Cache"] == "hit"


def test_a_picture_gets_the_same_answer_alone_and_among_others(detector: RunningServer) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        encode(Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((90 + 7 * n, 60)))
        for n in range(8)
    ]
    client = triton.InferenceServerClient(f"127.0.0.1:{detector.http_port}")

    def infer(rows: list[bytes]) -> list[tuple[bytes, ...]]:
        tensor = triton.InferInput("image", [len(rows)], "BYTES")
        tensor.set_data_from_numpy(np.array(rows, dtype=object))
        answer = client.infer("detect.colours", [tensor])
        names = ("boxes", "scores", "labels", "size")
        parts = [answer.as_numpy(name) for name in names]
        return [tuple(part[row].tobytes() for part in parts) for row in range(len(rows))]

    alone = [infer([each])[0] for each in pictures]
    assert infer(pictures) == alone
    with ThreadPoolExecutor(8) as threads:
        headers = {"Cache-Control": "no-cache"}
        answers = list(
            threads.map(
                lambda data: detector.http.post(
                    "/v1/detect?model=colours", content=data, headers={**headers, "Content-Type": "image/png"}
                ),
                pictures,
            )
        )
    assert [each.json() for each in answers] == [
        detect(detector, each, model="colours").json() for each in pictures
    ]


def test_a_bad_row_is_named(detector: RunningServer) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{detector.http_port}")
    tensor = triton.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([encode(TWO), b"no picture"], dtype=object))
    with pytest.raises(triton.InferenceServerException, match="row 1"):
        client.infer("detect.colours", [tensor])


def test_a_network_that_is_no_detector_is_refused_with_the_reason(
    detector: RunningServer, own_repository: Any, start_server: Any
) -> None:
    image, boxes = Port("image", "FP32", (3, SIDE, SIDE)), Port("boxes", "FP32", (3, SIDE, SIDE))
    from onnx import helper

    model = network([helper.make_node("Identity", ["image"], ["boxes"])], [image], [boxes])
    facts = {"task": "detection", "preprocessing": PREPROCESSING}
    add_model(own_repository, "odd", model, [image], [boxes], facts=facts)
    add_colour_detector(
        own_repository, "cropped", preprocessing={**PREPROCESSING, "resize_type": "crop", "pad_value": 0}
    )
    server = start_server(own_repository)
    reasons = {
        each["name"]: each["reason"] for each in server.http.post("/v2/repository/index", json={}).json()
    }
    assert "boxes and scores" in reasons["odd"]
    assert "fit_to_window" in reasons["cropped"]
