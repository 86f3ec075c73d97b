"""The segment service: batches equal requests alone, a bad image harms nobody else, unfit networks are
refused."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pytest
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ModelRefused, UndecodableMedia
from nonet.runtime.images import ImageLimits
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from nonet.services.recognition.segmentation import SegmentServable, derive
from tests.support.handmade_segmenters import COARSE, KINDS, SIDE, segmenter

PREPROCESSING: dict[str, Any] = {
    "resize": SIDE,
    "crop": SIDE,
    "interpolation": "bilinear",
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "resize_type": "standard",
}


class SmallNetwork:
    """A real network on ONNX Runtime. Counts the rows of its batches."""

    def __init__(self, kind: str = "independent", **changes: Any) -> None:
        self._session = onnxruntime.InferenceSession(segmenter(kind), providers=["CPUExecutionProvider"])
        labels = KINDS[kind]
        self._info = dataclasses.replace(
            ModelInfo(
                name="small",
                version="3",
                digest="d1",
                platform="onnxruntime_onnx",
                inputs=(TensorSpec("image", DataType.FP32, (-1, 3, SIDE, SIDE)),),
                outputs=(TensorSpec("logits", DataType.FP32, (-1, len(labels), COARSE, COARSE)),),
                max_batch_size=4,
                task="segmentation",
                labels=labels,
                details={"preprocessing": PREPROCESSING, "source": {"masks": kind}},
            ),
            **changes,
        )
        self.batches: list[int] = []

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        images = np.concatenate([request.inputs[0].data for request in batch])
        self.batches.append(len(images))
        (logits,) = self._session.run(None, {"image": images})
        edges = np.cumsum([len(request.inputs[0].data) for request in batch])[:-1]
        return [InferResponse("small", "3", (Tensor.of("logits", part),)) for part in np.split(logits, edges)]

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest("small", (Tensor.of("image", np.zeros((rows, 3, SIDE, SIDE), np.float32)),))

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def service(network: SmallNetwork | None = None) -> SegmentServable:
    (derived,) = derive(network or SmallNetwork())
    assert isinstance(derived, SegmentServable)
    return derived


def png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture with red and green places."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


def request(*images: bytes, **parameters: Any) -> InferRequest:
    return InferRequest("segment.small", (Tensor.of_bytes("image", list(images)),), parameters=parameters)


def answered(outcome: Outcome) -> tuple[list[bytes], list[bytes]]:
    assert isinstance(outcome, InferResponse), outcome
    return outcome.output("masks").data.tolist(), outcome.output("overlay").data.tolist()


def test_the_service_describes_itself_after_its_network() -> None:
    info = service().info
    assert (info.name, info.version, info.network, info.task) == (
        "segment.small",
        "3",
        "small",
        "segmentation",
    )
    assert [spec.name for spec in info.outputs] == ["masks", "overlay"]
    assert info.details["classes"] == ["red", "green"]
    assert service(SmallNetwork("exclusive")).info.details["classes"] == ["red", "green"]
    assert service().info.digest != service(SmallNetwork(digest="d2")).info.digest
    (small,) = derive(SmallNetwork(), ImageLimits(pixels=1000))
    assert small.info.digest != service().info.digest


def test_masks_are_those_of_the_colours_in_the_order_of_the_classes() -> None:
    buffer = io.BytesIO()
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20, 0] = 255
    picture[:10, :, 1] = 255
    Image.fromarray(picture).save(buffer, "PNG")
    for kind in KINDS:
        ((text,), (overlay,)) = answered(service(SmallNetwork(kind)).execute([request(buffer.getvalue())])[0])
        found = orjson.loads(text)
        assert found["image"] == {"width": 40, "height": 20}
        assert found["classes"] == ["red", "green"]
        assert [mask["label"] for mask in found["masks"]] == ["red", "green"]
        assert all(mask["rle"]["size"] == [20, 40] for mask in found["masks"])
        assert found["masks"][0]["area"] == pytest.approx(400, abs=40)
        # Where both are, the first has it if only one class may.
        assert found["masks"][1]["area"] == pytest.approx(400 if kind == "independent" else 200, abs=40)
        assert overlay == b""


def test_a_class_that_is_not_there_has_no_mask() -> None:
    buffer = io.BytesIO()
    Image.new("L", (9, 9)).save(buffer, "PNG")
    ((text,), _) = answered(service().execute([request(buffer.getvalue())])[0])
    assert orjson.loads(text)["masks"] == []


def test_answers_in_batches_are_those_alone_bit_for_bit() -> None:
    network = SmallNetwork()
    sizes = [(40, 30), (1, 1), (7, 90), (300, 200), (33, 32), (40, 30), (64, 64)]
    images = [png(seed, size) for seed, size in enumerate(sizes)]
    alone = [answered(service(network).execute([request(image, output="overlay")])[0]) for image in images]
    network.batches.clear()
    together = service(network).execute(
        [request(*images[:3], output="overlay"), request(*images[3:], output="overlay")]
    )
    assert network.batches
    found = [answered(outcome) for outcome in together]
    assert [text for texts, _ in found for text in texts] == [texts[0] for texts, _ in alone]
    assert [one for _, overlays in found for one in overlays] == [overlays[0] for _, overlays in alone]


def test_a_bad_image_fails_alone_with_its_row_named() -> None:
    good, bad = png(1), b"no image at all"
    outcomes = service().execute([request(good), request(good, bad), request(bad), request(good)])
    assert isinstance(outcomes[1], UndecodableMedia)
    assert "row 1 of 'image'" in outcomes[1].message
    assert isinstance(outcomes[2], UndecodableMedia)
    assert "row" not in outcomes[2].message
    assert answered(outcomes[0]) == answered(outcomes[3])


def test_an_unknown_output_is_refused() -> None:
    (outcome,) = service().execute([request(png(1), output="svg")])
    assert isinstance(outcome, InvalidArgument)
    assert outcome.param == "output"
    assert "masks or overlay" in outcome.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ("red",)}, "1 labels for 2 classes"),
        ({"details": {"preprocessing": {**PREPROCESSING, "resize_type": "crop"}}}, "whole image"),
        ({"details": {"preprocessing": {**PREPROCESSING, "resize": SIDE + 8}}}, "whole image"),
        ({"details": {"preprocessing": PREPROCESSING, "source": {"masks": "many"}}}, "source.masks"),
        ({"outputs": (TensorSpec("logits", DataType.FP32, (-1, 2)),)}, "height, width"),
        ({"outputs": (TensorSpec("logits", DataType.FP32, (-1, 2, -1, -1)),)}, "height, width"),
        ({"inputs": (TensorSpec("image", DataType.UINT8, (-1, 3, SIDE, SIDE)),)}, "FP32"),
        ({"outputs": (TensorSpec("logits", DataType.FP32, (-1, 300, 4, 4)),)}, "300 classes"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        derive(SmallNetwork(**changes))


def test_networks_of_other_tasks_and_bare_ones_get_no_service() -> None:
    assert derive(SmallNetwork(task="classification")) == ()
    assert derive(SmallNetwork(details={})) == ()
    assert derive(SmallNetwork(max_batch_size=0)) == ()
