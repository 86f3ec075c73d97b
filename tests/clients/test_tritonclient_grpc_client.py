"""``tritonclient.grpc``, unchanged, against the running gateway."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support.running_server import RunningServer
from tests.support.slow_requests import fresh_value


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc_address) as made:
        yield made


def tensor(name: str, array: np.ndarray) -> Any:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def test_health_and_server_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name
    assert "statistics" in metadata.extensions


def test_model_readiness_metadata_and_config(client: Any) -> None:
    assert client.is_model_ready("pair")
    assert client.is_model_ready("pair", "1")
    assert not client.is_model_ready("absent")
    metadata = client.get_model_metadata("pair")
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in metadata.inputs] == [
        ("a", "FP32", [-1, -1]),
        ("b", "INT32", [-1, -1]),
    ]
    assert [output.name for output in metadata.outputs] == ["sum", "difference"]
    config = client.get_model_config("pair").config
    assert (config.name, config.max_batch_size) == ("pair", 8)
    assert [list(entry.dims) for entry in config.input] == [[-1], [-1]]
    as_json = client.get_model_config("tinynet", as_json=True)
    assert as_json["config"]["output"][0]["label_filename"] == "labels.txt"


def test_infer(client: Any) -> None:
    a, b = np.float32([[1.5, -2.0, 0.1]]), np.int32([[1, 2, 3]])
    result = client.infer("pair", [tensor("a", a), tensor("b", b)], request_id="mine")
    assert np.array_equal(result.as_numpy("sum"), a + b.astype(np.float32))
    assert np.array_equal(result.as_numpy("difference"), a - b.astype(np.float32))
    assert result.get_response().id == "mine"
    only = client.infer(
        "pair", [tensor("a", a), tensor("b", b)], outputs=[triton.InferRequestedOutput("sum")]
    )
    assert [output.name for output in only.get_response().outputs] == ["sum"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_infer_compressed(client: Any, algorithm: str) -> None:
    x = np.full((2, 3000), fresh_value(), np.float32)
    result = client.infer("echo_fp32", [tensor("x", x)], compression_algorithm=algorithm)
    assert np.array_equal(result.as_numpy("y"), x)


def test_a_large_tensor_passes(client: Any) -> None:
    x = np.random.default_rng(4).standard_normal((8, 1 << 20)).astype(np.float32)
    result = client.infer("echo_fp32", [tensor("x", x)])
    assert np.array_equal(result.as_numpy("y"), x)


def test_versions(client: Any) -> None:
    x = np.float32([[fresh_value()]])
    for version, factor in (("1", 10), ("2", 20), ("", 20)):
        result = client.infer("scaled", [tensor("x", x)], model_version=version)
        assert np.array_equal(result.as_numpy("y"), x * factor)


def test_async_infer(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    arrays = [np.float32([[fresh_value()]]) for _ in range(20)]
    for number, array in enumerate(arrays):
        client.async_infer(
            "echo_fp32",
            [tensor("x", array)],
            lambda result, error, number=number: answers.put((number, result, error)),
        )
    for _ in arrays:
        number, result, error = answers.get(timeout=30)
        assert error is None
        assert np.array_equal(result.as_numpy("y"), arrays[number])


def test_an_async_call_can_be_cancelled(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    call = client.async_infer(
        "slow",
        [tensor("x", np.float32([fresh_value()]))],
        lambda result, error: answers.put(error),
    )
    call.cancel()
    error = answers.get(timeout=30)
    assert isinstance(error, InferenceServerException)
    assert "CANCELLED" in str(error)


async def test_infer_with_the_asyncio_client(server: RunningServer) -> None:
    async with aio.InferenceServerClient(server.grpc_address) as client:
        x = np.float32([[fresh_value()]])
        result = await client.infer("echo_fp32", [tensor("x", x)])
        assert np.array_equal(result.as_numpy("y"), x)

        async def requests() -> Any:
            for value in (1.0, 2.0):
                yield {"model_name": "echo_fp32", "inputs": [tensor("x", np.float32([[value]]))]}

        got = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            got.append(float(result.as_numpy("y")[0, 0]))
        assert sorted(got) == [1.0, 2.0]


def test_stream_infer_answers_each_request_and_survives_a_bad_one(server: RunningServer) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        values = [fresh_value() for _ in range(10)]
        for number, value in enumerate(values):
            client.async_stream_infer(
                "echo_fp32", [tensor("x", np.float32([[value]]))], request_id=str(number)
            )
            if number == 4:
                client.async_stream_infer("absent", [tensor("x", np.float32([[value]]))], request_id="bad")
        got, errors = {}, []
        for _ in range(11):
            result, error = answers.get(timeout=30)
            if error is not None:
                errors.append(str(error))
            else:
                got[int(result.get_response().id)] = float(result.as_numpy("y")[0, 0])
        client.stop_stream()
    assert got == dict(enumerate(values))
    assert len(errors) == 1
    assert "absent" in errors[0]


def test_bytes_tensors(client: Any) -> None:
    x = np.array([[b"hello", b"", b"\xe2\x82\xac"]], dtype=object)
    assert client.infer("echo_bytes", [tensor("x", x)]).as_numpy("y").tolist() == x.tolist()


def test_class_count_gives_score_index_and_label(client: Any) -> None:
    image = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    logits = client.infer("tinynet", [tensor("image", image)]).as_numpy("logits")
    outputs = [triton.InferRequestedOutput("logits", class_count=2)]
    top = client.infer("tinynet", [tensor("image", image)], outputs=outputs).as_numpy("logits")
    assert top.shape == (2, 2)
    labels = ["apple", "banana", "carrot", "milk", "bread"]
    for row, texts in zip(logits, top, strict=True):
        best = int(row.argmax())
        assert texts[0].decode().split(":")[1:] == [str(best), labels[best]]


def test_statistics(client: Any) -> None:
    before = client.get_inference_statistics("unbatched").model_stats[0]
    client.infer("unbatched", [tensor("x", np.full((2, 3), fresh_value(), np.float32))])
    after = client.get_inference_statistics("unbatched").model_stats[0]
    assert after.inference_count - before.inference_count == 1
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.batch_stats[0].compute_infer.count >= 1
    assert len(client.get_inference_statistics().model_stats) > 10


def test_repository_index_unload_and_load(client: Any) -> None:
    index = {(entry.name, entry.version): entry for entry in client.get_model_repository_index().models}
    assert index[("scaled", "1")].state == "READY"
    assert index[("truncated", "1")].state == "UNAVAILABLE"
    client.unload_model("echo_uint32")
    assert not client.is_model_ready("echo_uint32")
    client.load_model("echo_uint32")
    assert client.is_model_ready("echo_uint32")
    with pytest.raises(InferenceServerException):
        client.load_model("absent")


def test_a_client_timeout_is_a_deadline(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", [tensor("x", np.float32([fresh_value()]))], client_timeout=0.05)
    assert any(word in str(caught.value) for word in ("DEADLINE_EXCEEDED", "UNAVAILABLE"))


def test_errors_arrive_as_the_clients_own_exception(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("absent", [tensor("x", np.float32([[1]]))])
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("echo_fp32", [tensor("x", np.float64([[1]]))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "expects FP32" in caught.value.message()
