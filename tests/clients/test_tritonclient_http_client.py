"""``tritonclient.http``, unchanged, against the running gateway."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support.running_server import RunningServer
from tests.support.slow_requests import fresh_value


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    """A client of four connections. Its event loop library forgets sockets; the warnings are not ours."""
    made = triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=4)
    yield made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        made.close()
        del made
        gc.collect()


def tensor(name: str, array: np.ndarray, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def pair(a: np.ndarray, b: np.ndarray, binary: bool = True) -> list[Any]:
    return [tensor("a", a, binary), tensor("b", b, binary)]


def test_health_and_server_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"]
    assert metadata["version"]
    assert "binary_tensor_data" in metadata["extensions"]


def test_model_readiness_metadata_and_config(client: Any) -> None:
    assert client.is_model_ready("pair")
    assert client.is_model_ready("pair", "1")
    assert not client.is_model_ready("absent")
    assert not client.is_model_ready("pair", "9")
    metadata = client.get_model_metadata("pair")
    assert metadata["name"] == "pair"
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "b", "datatype": "INT32", "shape": [-1, -1]},
    ]
    assert [output["name"] for output in metadata["outputs"]] == ["sum", "difference"]
    config = client.get_model_config("pair")
    assert config["name"] == "pair"
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert [int(dim) for dim in config["input"][0]["dims"]] == [-1]
    assert client.get_model_metadata("scaled")["versions"] == ["1", "2"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_infer_in_every_mixture_of_forms(client: Any, binary_in: bool, binary_out: bool) -> None:
    a, b = np.float32([[1.5, -2.0, 0.1]]), np.int32([[1, 2, 3]])
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("sum", "difference")]
    result = client.infer("pair", pair(a, b, binary_in), outputs=outputs, request_id="mine")
    assert np.array_equal(result.as_numpy("sum"), a + b.astype(np.float32))
    assert np.array_equal(result.as_numpy("difference"), a - b.astype(np.float32))
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "1"


def test_infer_without_requested_outputs_and_with_a_version(client: Any) -> None:
    x = np.float32([[fresh_value()]])
    for version, factor in (("1", 10), ("2", 20), ("", 20)):
        result = client.infer("scaled", [tensor("x", x)], model_version=version)
        assert np.array_equal(result.as_numpy("y"), x * factor)


def test_async_infer(client: Any) -> None:
    arrays = [np.float32([[fresh_value()]]) for _ in range(20)]
    going = [client.async_infer("echo_fp32", [tensor("x", array)]) for array in arrays]
    for array, answer in zip(arrays, going, strict=True):
        assert np.array_equal(answer.get_result().as_numpy("y"), array)


async def test_infer_with_the_asyncio_client(server: RunningServer) -> None:
    async with aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        x = np.float32([[fresh_value()]])
        result = await client.infer("echo_fp32", [tensor("x", x)])
        assert np.array_equal(result.as_numpy("y"), x)


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
def test_compression_both_ways(
    client: Any, request_algorithm: str | None, response_algorithm: str | None
) -> None:
    x = np.full((2, 3000), fresh_value(), np.float32)
    result = client.infer(
        "echo_fp32",
        [tensor("x", x)],
        request_compression_algorithm=request_algorithm,
        response_compression_algorithm=response_algorithm,
    )
    assert np.array_equal(result.as_numpy("y"), x)


@pytest.mark.parametrize("binary", [True, False])
def test_bytes_tensors(client: Any, binary: bool) -> None:
    x = np.array([["hello", "", "\u20ac"]], dtype=object)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("echo_bytes", [tensor("x", x, binary)], outputs=outputs)
    got = [item.decode() if isinstance(item, bytes) else item for item in result.as_numpy("y").ravel()]
    assert got == ["hello", "", "\u20ac"]


def test_half_precision_tensors(client: Any) -> None:
    half = np.float16([[1.5, -2.0]])
    assert np.array_equal(client.infer("echo_fp16", [tensor("x", half)]).as_numpy("y"), half)
    brain = np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16)
    assert np.array_equal(client.infer("echo_bf16", [tensor("x", brain)]).as_numpy("y"), brain)


@pytest.mark.parametrize("binary", [True, False])
def test_class_count_gives_score_index_and_label(client: Any, binary: bool) -> None:
    image = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    logits = client.infer("tinynet", [tensor("image", image)]).as_numpy("logits")
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary, class_count=3)]
    top = client.infer("tinynet", [tensor("image", image)], outputs=outputs).as_numpy("logits")
    assert top.shape == (2, 3)
    labels = ["apple", "banana", "carrot", "milk", "bread"]
    for row, texts in zip(logits, top, strict=True):
        for index, text in zip(np.argsort(-row)[:3], texts, strict=True):
            score, place, label = (text.decode() if isinstance(text, bytes) else text).split(":")
            assert (int(place), label) == (index, labels[index])
            assert float(score) == pytest.approx(float(row[index]), rel=1e-4)


def test_statistics_count_what_was_done(client: Any) -> None:
    def one() -> dict[str, Any]:
        (entry,) = client.get_inference_statistics("fixed_fp32")["model_stats"]
        return entry

    before = one()
    client.infer("fixed_fp32", [tensor("x", np.float32([[fresh_value(), 0, 0, 0]] * 3))])
    after = one()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    stats = after["inference_stats"]
    assert stats["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        assert set(stats[part]) >= {"count", "ns"}
    assert stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0
    everything = client.get_inference_statistics()["model_stats"]
    assert {entry["name"] for entry in everything} >= {"pair", "tinynet", "classify.tinynet"}


def test_repository_index_unload_and_load(client: Any) -> None:
    index = {(entry["name"], entry["version"]): entry for entry in client.get_model_repository_index()}
    assert index[("scaled", "1")]["state"] == index[("scaled", "2")]["state"] == "READY"
    assert index[("truncated", "1")]["state"] == "UNAVAILABLE"
    assert index[("truncated", "1")]["reason"]
    client.unload_model("echo_uint16")
    assert not client.is_model_ready("echo_uint16")
    client.load_model("echo_uint16")
    assert client.is_model_ready("echo_uint16")
    with pytest.raises(InferenceServerException):
        client.load_model("absent")


def test_parameters_and_timeout_travel(client: Any) -> None:
    x = np.float32([[fresh_value()]])
    result = client.infer(
        "echo_fp32", [tensor("x", x)], parameters={"mine": "a", "count": 3}, timeout=5_000_000, priority=1
    )
    assert np.array_equal(result.as_numpy("y"), x)


def test_errors_arrive_as_the_clients_own_exception(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("absent", [tensor("x", np.float32([[1]]))])
    assert caught.value.status() == "404"
    assert "absent" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        client.infer("echo_fp32", [tensor("x", np.float64([[1]]))])
    assert "expects FP32" in caught.value.message()


def test_a_service_takes_encoded_images_as_bytes(client: Any) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    images = np.array([buffer.getvalue()] * 2, dtype=object)
    result = client.infer("classify.tinynet", [tensor("image", images)]).as_numpy("scores")
    assert result.shape == (2, 5)
    assert result.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert np.array_equal(result[0], result[1])
