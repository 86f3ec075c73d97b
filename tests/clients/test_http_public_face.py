"""What a newcomer touches over HTTP: the page, the documentation, the lists, the metrics, the headers."""

from __future__ import annotations

import io
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.running_server import RunningServer
from tests.support.slow_requests import fresh_value

TRITON_NAMES = [
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
    "nv_inference_pending_request_count",
    "nv_cache_num_hits_per_model",
    "nv_cache_num_misses_per_model",
]


def echo() -> list[dict[str, Any]]:
    return [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [fresh_value()]}]


def test_the_documentation_and_the_playground_are_there(server: RunningServer) -> None:
    page = server.http.get("/")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert server.http.get("/docs").status_code == 200
    schema = server.http.get("/openapi.json").json()
    assert {"/v1/classify", "/v1/models", "/v2/models/{model}/infer"} <= {
        path.replace("{model_name}", "{model}").replace("{m}", "{model}") for path in schema["paths"]
    }


def test_the_documentation_works_without_the_internet(server: RunningServer) -> None:
    """A gateway often runs where no content delivery network can be reached."""
    for path in ("/", "/docs"):
        text = server.http.get(path).text
        assert 'src="http' not in text
        assert 'href="https://cdn' not in text


def test_models_are_listed_in_the_shape_of_openai(server: RunningServer) -> None:
    reply = server.http.get("/v1/models").json()
    assert reply["object"] == "list"
    by_name = {entry["id"]: entry for entry in reply["data"]}
    assert {"tinynet", "tinynet_large"} & set(by_name) or "tiny" in by_name
    for entry in reply["data"]:
        assert entry["object"] == "model"
        assert isinstance(entry["created"], int)
        assert entry["owned_by"]


def test_auto_and_family_names_choose_a_classifier(server: RunningServer) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    for model in ("tiny", "tinynet", "tinynet_large", "classify.tinynet"):
        reply = server.http.post(
            "/v1/classify", files={"image": ("a.png", buffer.getvalue())}, data={"model": model}
        )
        assert reply.status_code == 200, reply.text
        assert "tinynet" in reply.json()["model"]
    assert server.http.post("/v1/classify", files={"image": ("a.png", buffer.getvalue())}).status_code in (
        200,
        502,
    )


def test_metrics_carry_tritons_names_with_model_and_version(server: RunningServer) -> None:
    server.infer("echo_fp32", echo())
    found: dict[str, set[str]] = {}
    for name, labels in server.metrics():
        found.setdefault(name, set()).update(label for label, _ in labels)
    for name in TRITON_NAMES:
        assert {"model", "version"} <= found[name], name
    assert any(name.startswith("nonet_") and name.endswith("_bucket") for name in found)


def test_metrics_are_clean_by_promtool(server: RunningServer) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    server.infer("echo_fp32", echo())
    text = server.http.get("/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    # 3 means advice on names. Those of Triton are what its dashboards ask for, units and suffixes and all.
    assert checked.returncode in (0, 3), checked.stderr
    advice = [line.split(" ", 1)[0] for line in checked.stderr.splitlines()]
    assert set(advice) <= set(TRITON_NAMES), checked.stderr


def test_cancelled_and_shed_requests_have_counters_from_the_start(server: RunningServer) -> None:
    text = server.http.get("/metrics").text
    assert "# TYPE nonet_cancelled_total counter" in text
    assert "# TYPE nonet_shed_requests_total counter" in text


def test_the_answer_says_how_it_came_about(server: RunningServer) -> None:
    reply = server.infer("scaled", echo(), headers={"X-Request-Id": "abc"})
    assert reply.headers["X-Request-Id"] == "abc"
    assert reply.headers["X-Model-Version"] == "2"
    assert reply.headers["X-Cache"] == "miss"
    assert int(reply.headers["X-Batch-Size"]) >= 1
    assert reply.headers["X-Device"]
    names = {part.split(";")[0].strip() for part in reply.headers["Server-Timing"].split(",")}
    assert names >= {"decode", "queue", "compute", "encode"}


def test_server_metadata(server: RunningServer) -> None:
    metadata = server.http.get("/v2").json()
    assert set(metadata) == {"name", "version", "extensions"}


@pytest.mark.parametrize("value", ["0", "1", "9", "x", "-1"])
def test_priorities_are_numbers_and_anything_else_is_400(server: RunningServer, value: str) -> None:
    reply = server.infer("echo_fp32", echo(), headers={"X-Priority": value})
    assert reply.status_code in ((200,) if value in ("0", "1") else (200, 400)), reply.text
    if value == "x":
        assert reply.status_code == 400


def test_curl_sends_what_it_sends(server: RunningServer) -> None:
    """``curl -d`` says it sends a form; people do that with JSON all day, and other servers take it."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    body = '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}'
    result = subprocess.run(
        [curl, "-sS", "-w", "%{http_code}", f"{server.url}/v2/models/echo_fp32/infer", "-d", body],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout[-3:] in ("200", "415"), result.stdout
    assert result.stdout.startswith("{")
