"""The process: its one line, its services elsewhere, and how it ends when there is little to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nonet.runtime.oip.messages import methods
from tests.support import handmade_networks
from tests.support.running_server import assert_clean_log, eventually, free_port

Launch = Callable[..., "subprocess.Popen[str]"]
COMMAND = [sys.executable, "-m", "nonet.cli.main"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bare network and one classifier."""
    root = tmp_path_factory.mktemp("process") / "models"
    root.mkdir()
    handmade_networks.add_identity(root, "echo", "FP32", (-1,))
    handmade_networks.add_classifier(root, "shop", 4, family="shop", top1=0.6)
    return root


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NONET_")}
    return {**kept, "NONET_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}


class Service:
    """``nonet service recognition`` in a process of its own."""

    def __init__(self, models: Path, folder: Path, port: int) -> None:
        self.port = port
        self.log_path = folder / "service.log"
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                [*COMMAND, "service", "recognition", "--port", str(port), "--repository", str(models)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(folder),
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def end(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(40)


@pytest.fixture
def service(models: Path, tmp_path: Path) -> Iterator[Service]:
    started = Service(models, tmp_path, free_port())
    eventually(lambda: f":{started.port}" in started.log, "the service is ready", 60)
    yield started
    if started.popen.poll() is None:
        assert started.end() == 0
    assert_clean_log(started.log)


def topology(folder: Path, port: int) -> Path:
    path = folder / "topology.toml"
    path.write_text(f'[[service]]\nname = "recognition"\naddress = "127.0.0.1:{port}"\n')
    return path


@pytest.fixture
def launch(models: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start gateways on free ports; what a failed test leaves behind is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, repository: Path = models) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *COMMAND,
                "serve",
                "--http-port",
                "0",
                "--grpc-port",
                "0",
                "--repository",
                str(repository),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            if process.poll() is None:
                process.kill()


def ready_line(process: subprocess.Popen[str]) -> list[str]:
    """The line on standard output, split at spaces."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def stopped(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """End it; the exit status must be 0. Returns what was written to standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 0, errors
    assert_clean_log(errors)
    return errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_on_standard_output_says_where_to_call(launch: Launch, number: int) -> None:
    process = launch()
    words = ready_line(process)
    assert words[:1] + words[2:5] == ["nonet", "is", "ready", "at"]
    http, rpc = words[5:7]
    assert http.startswith("http://127.0.0.1:")
    assert rpc.startswith("grpc://127.0.0.1:")
    assert " ".join(words[7:]).startswith("(3 models")
    with grpc.insecure_channel(rpc.removeprefix("grpc://")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        if sys.platform == "linux":
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            assert "onnxruntime" in maps
            assert "torch" not in maps
        # A watcher and an open stream would keep a server that waits for its calls from ever ending.
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(()))
        errors = stopped(process, number)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            assert list(stream) == []
        except grpc.RpcError as late:  # it came after the signal, or met the closing
            assert late.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert "cancelled" not in errors


def test_an_empty_repository_serves_and_says_how_to_fill_it(launch: Launch, tmp_path: Path) -> None:
    """Also: JSON logs are one object per line."""
    (tmp_path / "models").mkdir()
    config = tmp_path / "nonet.toml"
    config.write_text("[logging]\nformat = 'json'\n")
    process = launch("--config", str(config), repository=tmp_path / "models")
    words = ready_line(process)
    assert words[2:5] == ["waits", "for", "a"]
    lines = [json.loads(line) for line in stopped(process).splitlines()]
    assert any("nonet models pull" in line["message"] for line in lines)
    assert any("leaving" in line["message"] for line in lines)


def test_a_signal_while_it_starts_ends_it_with_0(launch: Launch) -> None:
    process = launch()
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("loaded" in line for line in lines)
    stopped(process)


def classify(channel: Any, image: bytes) -> Any:
    method = next(each for each in methods("nonet.v1.Recognition") if each.path.endswith("/Classify"))
    call = channel.unary_unary(method.path, response_deserializer=method.response.FromString)
    return call(method.request(image=image, top_k=2).SerializeToString(), timeout=30)


def png(seed: int) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def test_a_gateway_serves_a_service_that_runs_elsewhere(
    models: Path, tmp_path: Path, service: Service, launch: Launch
) -> None:
    """The answers are those of one process, and the gateway's readiness follows the service."""
    image = png(1)
    embedded = launch()
    words = ready_line(embedded)
    with grpc.insecure_channel(words[6].removeprefix("grpc://")) as channel:
        alone = classify(channel, image)
    stopped(embedded)
    gateway = launch("--topology", str(topology(tmp_path, service.port)))
    words = ready_line(gateway)
    assert words[2:4] == ["is", "ready"]
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as direct:
        with pytest.raises(grpc.RpcError) as caught:  # a service speaks the inference protocol alone
            classify(direct, image)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with grpc.insecure_channel(words[6].removeprefix("grpc://")) as channel:
        assert classify(channel, image) == alone
        health = health_pb2_grpc.HealthStub(channel)

        def status() -> Any:
            return health.Check(health_pb2.HealthCheckRequest()).status

        assert service.end() == 0
        eventually(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING, "readiness falls")
        with pytest.raises(grpc.RpcError) as caught:
            classify(channel, png(2))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        again = Service(models, tmp_path, service.port)
        try:
            eventually(lambda: status() == health_pb2.HealthCheckResponse.SERVING, "readiness returns", 60)
            assert classify(channel, image) == alone
        finally:
            assert again.end() == 0
    stopped(gateway)


def test_a_gateway_whose_service_is_not_there_waits_for_it(launch: Launch, tmp_path: Path) -> None:
    process = launch("--topology", str(topology(tmp_path, free_port())))
    words = ready_line(process)
    assert words[2:5] == ["waits", "for", "its"]
    assert "Traceback" not in stopped(process)
