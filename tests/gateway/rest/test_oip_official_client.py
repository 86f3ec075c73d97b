"""The Open Inference Protocol over HTTP as the official client speaks it, and control of the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(rest: Any) -> Any:
    with triton.InferenceServerClient(f"127.0.0.1:{rest.port}") as made:
        yield made


def test_the_official_client_reads_everything(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scaled")
    assert client.is_model_ready("scaled", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "nonet"
    assert client.get_model_metadata("scaled")["versions"] == ["1", "2"]
    assert client.get_model_config("scaled")["name"] == "scaled"
    names = {line["name"] for line in client.get_model_repository_index()}
    assert {"echo", "shop_small", "classify.shop_small"} <= names
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory("none")
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.get_trace_settings("echo") == client.update_trace_settings(settings={"trace_level": None})
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_the_official_client_infers(
    client: Any, request_coding: str | None, response_coding: str | None, binary: bool
) -> None:
    values = np.arange(6000, dtype=np.float32).reshape(1, -1)
    given = triton.InferInput("x", list(values.shape), "FP32")
    given.set_data_from_numpy(values, binary_data=binary)
    wanted = triton.InferRequestedOutput("y", binary_data=binary)
    answer = client.infer(
        "echo",
        [given],
        outputs=[wanted],
        request_id="mine",
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), values)
    assert answer.get_response()["id"] == "mine"


def test_the_official_client_waits_for_many_at_once(client: Any, rest: Any) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{rest.port}", concurrency=8) as several:
        pending = []
        for number in range(16):
            given = triton.InferInput("x", [1, 3], "FP32")
            given.set_data_from_numpy(np.full((1, 3), number, dtype=np.float32))
            pending.append(several.async_infer("scaled", [given], model_version="2"))
        for number, each in enumerate(pending):
            np.testing.assert_array_equal(each.get_result().as_numpy("y"), np.full((1, 3), 20.0 * number))


def test_the_official_client_asks_for_classes(client: Any, photo: bytes) -> None:
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([photo], dtype=object))
    wanted = triton.InferRequestedOutput("scores", class_count=2)
    classes = client.infer("classify.shop_small", [given], outputs=[wanted]).as_numpy("scores").reshape(-1)
    assert len(classes) == 2
    assert all(len(each.split(b":")) == 3 for each in classes)


def test_the_official_client_is_told_what_is_not_served(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="shared memory is not served"):
        client.register_system_shared_memory("region", "/key", 16)
    with pytest.raises(InferenceServerException, match="fixed while the server runs"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    with pytest.raises(InferenceServerException, match="is not known"):
        client.update_log_settings({"log_colour": True})


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400, "not taken over HTTP"),
        (b'{"parameters": {"colour": "red"}}', 400, "accepted: config"),
        (b'{"parameters": {"config": 5}}', 400, "parameters.config"),
        (b'{"parameters": []}', 400, "must be an object"),
        (b"[]", 400, "must be a JSON object"),
        (b"{", 400, "not valid JSON"),
        (b'{"a": "' + b"a" * 2_000_000 + b'"}', 400, "at most"),
    ],
)
def test_a_wrong_load_request_is_refused_with_the_reason(
    rest: Any, body: bytes, status: int, word: str
) -> None:
    reply = rest.http.post("/v2/repository/models/echo/load", content=body)
    assert reply.status_code == status
    assert word in reply.json()["error"]


def test_statistics_count_what_happened(client: Any) -> None:
    def count() -> int:
        (entry,) = client.get_inference_statistics("scaled", "1")["model_stats"]
        return int(entry["inference_stats"]["success"]["count"])

    before = count()
    given = triton.InferInput("x", [1, 1], "FP32")
    given.set_data_from_numpy(np.full((1, 1), before + 0.5, dtype=np.float32))
    client.infer("scaled", [given], model_version="1")
    assert count() == before + 1
    assert {entry["name"] for entry in client.get_inference_statistics()["model_stats"]} >= {"echo", "scaled"}


def test_models_are_unloaded_and_loaded_by_request(
    start_gateway: Any, rest_repository: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(rest_repository, root)
    server = start_gateway(root=root)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        client.unload_model("echo")
        assert not client.is_model_ready("echo")
        assert server.http.get("/v2/models/echo").status_code in (404, 503)
        client.load_model("echo")
        assert client.is_model_ready("echo")
        config = client.get_model_config("echo")
        client.load_model("echo", config=json.dumps({**config, "max_batch_size": 3}))
        assert client.get_model_config("echo")["max_batch_size"] == 3
        with pytest.raises(InferenceServerException):
            client.load_model("echo", config="{not json")
        with pytest.raises(InferenceServerException):
            client.load_model("nobody")
        ready = server.http.post("/v2/repository/index", json={"ready": True}).json()
        assert {line["state"] for line in ready} == {"READY"}


def test_repository_control_can_be_switched_off(start_gateway: Any) -> None:
    server = start_gateway(repository={"control": False})
    reply = server.http.post("/v2/repository/models/echo/unload")
    assert reply.status_code == 403
    assert server.http.get("/v2/models/echo/ready").status_code == 200
