"""A real Triton Inference Server of one's own, on free ports, and Python models for it that misbehave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.running_server import free_port

ROOT = Path(__file__).parents[2]
READY_GUARD = 120.0


def _environment() -> Path | None:
    """The virtual environment that ``make test`` makes, or None."""
    for place in (Path(sys.prefix) / "triton", ROOT / ".venv" / "triton"):
        if any(place.glob("lib/python*/site-packages/pytriton/tritonserver/backends/python/*_stub")):
            return place
    return None


needs_triton = pytest.mark.skipif(
    _environment() is None, reason="Triton is not installed: make .venv/triton/.ready"
)

SLEEPER = '''
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Doubles x, after as many seconds as the largest of the requests together says."""

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(each, "x").as_numpy() for each in requests]
        time.sleep(max(float(each.max()) for each in inputs))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", each * 2)]) for each in inputs]
'''

SLEEPER_CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
dynamic_batching {
  max_queue_delay_microseconds: 50000
  default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 3600000000 }
}
instance_group { kind: KIND_CPU count: 1 }
"""


def write_sleeper(repository: Path, name: str) -> None:
    """A model that sleeps for the seconds of its input ``x`` FP32 [N, 1], and answers with its double."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(SLEEPER)
    (repository / name / "config.pbtxt").write_text(SLEEPER_CONFIG)


class TritonServer:
    """One ``tritonserver`` process; stop it with :meth:`stop`. All models are loaded; they can be controlled.

    Args:
        repository: Triton's.
        folder: where its log lies.
    """

    def __init__(self, repository: Path, folder: Path) -> None:
        place = _environment()
        assert place is not None
        folder.mkdir(parents=True, exist_ok=True)
        (program,) = place.glob("lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver")
        home = program.parents[1]
        self._log = folder / "triton.log"
        self.grpc_port, self.http_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.grpc_port}"
        self._command = [
            *(str(program), f"--model-repository={repository}", f"--backend-directory={home / 'backends'}"),
            *(f"--cache-directory={home / 'caches'}", "--allow-metrics=false", "--exit-on-error=false"),
            *("--model-control-mode=explicit", "--load-model=*", "--disable-auto-complete-config"),
            *("--http-address=127.0.0.1", f"--http-port={self.http_port}", "--http-thread-count=2"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={self.grpc_port}", "--exit-timeout-secs=2"),
        ]
        self._variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
            "OMP_NUM_THREADS": "1",
        }
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=30.0)
        self.start()

    def start(self) -> None:
        """Start it, after :meth:`kill` on the same ports; :meth:`wait_ready` waits for it."""
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                self._command, env=self._variables, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_ready(self) -> TritonServer:
        guard = time.monotonic() + READY_GUARD
        while time.monotonic() < guard and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/v2/health/ready", timeout=5.0).status_code == 200:
                    return self
            time.sleep(0.1)
        self.kill()
        raise AssertionError(f"Triton is not ready:\n{self._log.read_text(errors='replace')[-4000:]}")

    def process_of(self, model: str) -> psutil.Process:
        """The process of a model of the Python backend."""
        (found,) = [
            child
            for child in self.process.children(recursive=True)
            if any(f"/{model}/" in word for word in child.cmdline())
        ]
        return found

    def statistics(self, model: str) -> dict[str, int]:
        """How many rows it inferred, in how many executions."""
        (told,) = self.http.get(f"/v2/models/{model}/stats").json()["model_stats"]
        return {name: int(told[name]) for name in ("inference_count", "execution_count")}

    def control(self, what: str, model: str) -> None:
        self.http.post(f"/v2/repository/models/{model}/{what}", json={}).raise_for_status()

    def kill(self) -> None:
        """SIGKILL for it and the processes of its models, and wait for their end."""
        family = [self.process, *self.process.children(recursive=True)] if self.process.is_running() else []
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.http.close()
        self.kill()


@contextlib.contextmanager
def running_triton(repository: Path, folder: Path) -> Iterator[TritonServer]:
    server = TritonServer(repository, folder)
    try:
        yield server.wait_ready()
    finally:
        server.stop()
