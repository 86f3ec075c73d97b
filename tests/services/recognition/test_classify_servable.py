"""The classify service answers like its network run by hand; a bad image harms nobody else (fault 55)."""

from __future__ import annotations

import dataclasses
import io
import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ModelOutputInvalid, ServingError, UndecodableMedia
from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.repository import ModelRefused
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from nonet.services.recognition import ClassifyServable, derive
from nonet.services.recognition.classify import softmax

SIDE, CLASSES = 16, 5
PREPROCESSING = Preprocessing(20, SIDE)


class SmallNetwork:
    """A real network on ONNX Runtime: mean colour times weights, as a 1x1 convolution. Counts its batches."""

    def __init__(self, **changes: Any) -> None:
        weights = np.random.default_rng(1).standard_normal((CLASSES, 3, 1, 1)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
                helper.make_node("Conv", ["mean", "weights"], ["scores"]),
                helper.make_node("Flatten", ["scores"], ["logits"]),
            ],
            "small",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(weights, "weights")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self._info = dataclasses.replace(
            ModelInfo(
                name="small",
                version="3",
                digest="d1",
                platform="onnxruntime_onnx",
                inputs=(TensorSpec("image", DataType.FP32, (-1, 3, SIDE, SIDE)),),
                outputs=(TensorSpec("logits", DataType.FP32, (-1, CLASSES)),),
                max_batch_size=4,
                task="classification",
                family="test",
                quality={"top1": 0.5},
                labels=("a", "b", "c", "d", "e"),
                details={"preprocessing": PREPROCESSING.to_manifest(), "licence": "MIT"},
            ),
            **changes,
        )
        self.batches: list[list[int]] = []

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        self.batches.append([request.inputs[0].shape[0] for request in batch])
        return [self._answer(request, sum(self.batches[-1])) for request in batch]

    def _answer(self, request: InferRequest, rows: int) -> Outcome:
        (logits,) = self._session.run(None, {"image": request.inputs[0].data})
        if (np.abs(logits) > 1e6).any():
            return ModelOutputInvalid("output 'logits' is not finite")
        outputs = (Tensor.of("logits", logits),)
        return InferResponse("small", "3", outputs, timings=Timings(compute=0.5), batch_size=rows)

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest("small", (Tensor.of("image", np.zeros((rows, 3, SIDE, SIDE), np.float32)),))

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def service(network: Servable | None = None) -> ClassifyServable:
    (derived,) = derive(network or SmallNetwork())
    assert isinstance(derived, ClassifyServable)
    return derived


def request(*images: bytes, name: str = "r") -> InferRequest:
    return InferRequest("classify.small", (Tensor.of_bytes("image", list(images)),), id=name)


def answer(outcome: Outcome) -> InferResponse:
    assert isinstance(outcome, InferResponse), outcome
    return outcome


IMAGES = [jpeg((17 * index % 256, 99 * index % 256, 40 * index % 256)) for index in range(9)]


def test_the_service_describes_itself_after_its_network() -> None:
    info = service().info
    assert (info.name, info.version, info.network) == ("classify.small", "3", "small")
    assert info.inputs == (TensorSpec("image", DataType.BYTES, (-1,)),)
    assert info.outputs == (TensorSpec("scores", DataType.FP32, (-1, CLASSES)),)
    assert (info.max_batch_size, info.task, info.family) == (4, "classification", "test")
    assert info.labels == ("a", "b", "c", "d", "e")
    assert info.details["preprocessing"] == PREPROCESSING.to_manifest()
    assert info.details["quality"] == {"top1": 0.5}
    assert info.details["licence"] == "MIT"
    assert len(info.digest) == 64


def test_the_digest_changes_with_whatever_decides_the_answer() -> None:
    other = Preprocessing(24, SIDE).to_manifest()
    digests = {
        service().info.digest,
        service(SmallNetwork(digest="d2")).info.digest,
        service(SmallNetwork(details={"preprocessing": other})).info.digest,
        ClassifyServable(SmallNetwork(), PREPROCESSING, ImageLimits(pixels=1000)).info.digest,
    }
    assert len(digests) == 4
    assert service().info.digest in digests


def test_scores_are_the_softmax_of_the_network_run_by_hand() -> None:
    network = SmallNetwork()
    outcome = answer(service(network).execute([request(IMAGES[3])])[0])
    tensor = preprocess(decode_image(IMAGES[3], target=PREPROCESSING.target), PREPROCESSING)
    logits = answer(network.execute([InferRequest("small", (Tensor.of("image", tensor[None]),))])[0])
    exact = np.exp(logits.outputs[0].data.astype(np.float64))
    exact /= exact.sum()
    assert outcome.output("scores").datatype is DataType.FP32
    np.testing.assert_allclose(outcome.output("scores").data, exact, rtol=1e-6)
    assert (outcome.model, outcome.version, outcome.id) == ("classify.small", "3", "r")
    assert outcome.timings.decode > 0
    assert outcome.timings.compute == 0.5
    assert outcome.timings.encode > 0


def test_a_batch_is_one_execution_and_bit_equal_to_solo_runs() -> None:
    network = SmallNetwork()
    whole = service(network)
    requests = [request(IMAGES[0]), request(*IMAGES[1:3]), request(IMAGES[3])]
    outcomes = whole.execute(requests)
    assert network.batches == [[1, 2, 1]]
    for outcome, alone in zip(outcomes, requests, strict=True):
        solo = answer(whole.execute([alone])[0])
        assert answer(outcome).outputs[0].data.tobytes() == solo.outputs[0].data.tobytes()
        assert answer(outcome).batch_size == 4


def test_more_rows_than_the_network_takes_are_run_in_parts() -> None:
    network = SmallNetwork()
    scores = answer(service(network).execute([request(*IMAGES)])[0]).outputs[0].data
    assert network.batches == [[4, 4, 1]]
    assert scores.shape == (9, CLASSES)
    for row, image in enumerate(IMAGES):
        alone = answer(service(network).execute([request(image)])[0]).outputs[0].data
        assert scores[row].tobytes() == alone[0].tobytes()


@given(bad=st.sets(st.integers(0, 5)))
@settings(max_examples=20, deadline=None)
def test_a_bad_image_fails_alone(bad: set[int]) -> None:
    network = SmallNetwork()
    whole = service(network)
    requests = [request(IMAGES[index][:-9] if index in bad else IMAGES[index]) for index in range(6)]
    for index, outcome in enumerate(whole.execute(requests)):
        if index in bad:
            assert isinstance(outcome, InvalidArgument)
            assert outcome.code == "IMAGE_TRUNCATED"
            assert outcome.message.startswith("image: ")
        else:
            alone = answer(whole.execute([request(IMAGES[index])])[0])
            assert answer(outcome).outputs[0].data.tobytes() == alone.outputs[0].data.tobytes()
    if len(bad) < 6:
        assert network.batches[0] == [1] * (6 - len(bad))
    else:
        assert network.batches == []


def test_a_request_with_one_bad_row_fails_as_a_whole_and_names_it() -> None:
    network = SmallNetwork()
    outcome = service(network).execute([request(IMAGES[0], b"%PDF-1.4", IMAGES[1])])[0]
    assert isinstance(outcome, UndecodableMedia)
    assert (outcome.http_status, outcome.code, outcome.param) == (415, "IMAGE_UNSUPPORTED", "image")
    assert outcome.message.startswith("row 1 of 'image': PDF is not an accepted format")
    assert network.batches == []


def test_a_failure_of_the_network_reaches_only_its_request() -> None:
    class Picky(SmallNetwork):
        def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
            outcomes = super().execute(batch)
            return [
                ModelOutputInvalid("no") if index == 1 else outcome for index, outcome in enumerate(outcomes)
            ]

    first, second, third = service(Picky()).execute(
        [request(IMAGES[0]), request(IMAGES[1]), request(IMAGES[2])]
    )
    assert isinstance(second, ModelOutputInvalid)
    assert isinstance(first, InferResponse)
    assert isinstance(third, InferResponse)


def test_a_request_without_rows_is_refused() -> None:
    for empty in (request(), InferRequest("classify.small", ())):
        (outcome,) = service().execute([empty])
        assert isinstance(outcome, InvalidArgument)


def test_the_sample_is_a_photograph_that_the_service_answers() -> None:
    whole = service()
    sample = whole.sample_request(3)
    assert sample.inputs[0].shape == (3,)
    photo = decode_image(sample.inputs[0].data[0])
    assert (photo.width, photo.height, photo.format) == (640, 480, "JPEG")
    assert answer(whole.execute([sample])[0]).outputs[0].shape == (3, CLASSES)
    whole.warm_up()
    whole.close()


def test_a_warm_up_that_fails_is_raised() -> None:
    class Broken(SmallNetwork):
        def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
            return [ModelOutputInvalid("no") for _ in batch]

    with pytest.raises(ModelOutputInvalid):
        service(Broken()).warm_up()


def test_lanes_may_call_at_once() -> None:
    whole = service()
    expected = answer(whole.execute([request(*IMAGES[:4])])[0]).outputs[0].data.tobytes()
    wrong: list[Outcome | ServingError] = []

    def lane() -> None:
        for _ in range(10):
            (outcome,) = whole.execute([request(*IMAGES[:4])])
            if answer(outcome).outputs[0].data.tobytes() != expected:
                wrong.append(outcome)

    threads = [threading.Thread(target=lane) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.integers(1, 5),
)
def test_softmax_neither_overflows_nor_depends_on_other_rows(row: list[float], copies: int) -> None:
    logits = np.array([row] * copies, dtype=np.float32)
    scores = softmax(logits)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert scores[0].tobytes() == softmax(logits[:1])[0].tobytes()
    assert scores[0][np.argmax(logits[0])] == scores[0].max()


def test_networks_of_other_tasks_get_no_service() -> None:
    assert derive(SmallNetwork(task="")) == ()
    assert derive(SmallNetwork(task="detection")) == ()


@pytest.mark.parametrize("changes", [{"details": {}}, {"max_batch_size": 0}])
def test_a_network_that_cannot_be_served_from_images_is_left_alone_and_logged(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert derive(SmallNetwork(**changes)) == ()
    assert "no classify service" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"details": {"preprocessing": {"resize": 9, "crop": 16, "mean": [0] * 3, "std": [1] * 3}}}, "crop"),
        ({"details": {"preprocessing": Preprocessing(20, 17).to_manifest()}}, "does not take"),
        ({"inputs": (TensorSpec("image", DataType.UINT8, (-1, 3, SIDE, SIDE)),)}, "does not take"),
        ({"outputs": (TensorSpec("logits", DataType.FP32, (-1, 5, 1)),)}, "classes"),
        ({"outputs": ()}, "one output"),
        ({"labels": ("a", "b")}, "2 labels for 5 classes"),
    ],
)
def test_a_network_that_contradicts_its_manifest_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        derive(SmallNetwork(**changes))
