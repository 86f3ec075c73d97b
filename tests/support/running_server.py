"""A real gateway process, and what can be read of it from outside: answers, counters, memory, descriptors."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

READY_GUARD = 60.0
STOP_GUARD = 40.0
Section = Mapping[str, Any]


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{key}" = {_toml_value(item)}' for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def write_settings(path: Path, settings: Mapping[str, Section]) -> Path:
    """Write ``section -> field -> value`` as the TOML file of ``--config``."""
    lines: list[str] = []
    for section, fields in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in fields.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


class RunningServer:
    """One ``nonet serve`` process on free ports, started when made; stop it with :meth:`stop`.

    Args:
        repository: the model repository it serves.
        folder: where its log, settings and cache lie.
        settings: section -> field -> value, given through ``--config``.
        environment: variables on top of this process's own.
        prefix: words before the interpreter on the command line (e.g. ``prlimit``).
        arguments: further words after the flags of ``serve``.
        wait: whether to wait until it is ready.
    """

    def __init__(
        self,
        repository: Path,
        folder: Path,
        settings: Mapping[str, Section] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
        wait: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.repository = repository
        self.http_port = free_port()
        self.grpc_port = free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.grpc_address = f"127.0.0.1:{self.grpc_port}"
        self._log_path = folder / "server.log"
        config = write_settings(folder / "nonet.toml", settings or {})
        command = [
            *prefix,
            *(sys.executable, "-m", "nonet.cli.main", "serve"),
            *("--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port)),
            *("--repository", str(repository), "--config", str(config)),
            *arguments,
        ]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("NONET_")}
        variables |= {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1", **(environment or {})}
        with self._log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=variables
            )
        self.process = psutil.Process(self.popen.pid)
        self.http = httpx.Client(base_url=self.url, timeout=60.0)
        if wait:
            self.wait_ready()

    @property
    def log(self) -> str:
        """Everything the process has written so far."""
        return self._log_path.read_text(errors="replace")

    def wait_ready(self) -> None:
        """Wait for the ready line with both addresses. Raises RuntimeError with the log if it never comes."""
        guard = time.monotonic() + READY_GUARD
        while time.monotonic() < guard:
            if self.popen.poll() is not None:
                raise RuntimeError(f"the server ended with {self.popen.returncode}:\n{self.log}")
            if any(
                str(self.http_port) in line and str(self.grpc_port) in line for line in self.log.splitlines()
            ):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"no ready line within {READY_GUARD} s:\n{self.log}")

    def stop(self) -> int:
        """SIGTERM, wait, and the exit status; a process that does not end is killed and fails the caller."""
        self.http.close()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(STOP_GUARD)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server ignored SIGTERM for {STOP_GUARD} s:\n{self.log}") from None

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.http.close()
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def infer(
        self, model: str, inputs: list[dict[str, Any]], *, version: str = "", headers: Any = None, **body: Any
    ) -> httpx.Response:
        """``POST /v2/models/{model}/infer`` in JSON."""
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        return self.http.post(path, json={"inputs": inputs, **body}, headers=headers)

    def statistics(self, model: str) -> dict[str, Any]:
        """The only version's entry of ``/v2/models/{model}/stats``."""
        reply = self.http.get(f"/v2/models/{model}/stats")
        assert reply.status_code == 200, reply.text
        (entry,) = reply.json()["model_stats"]
        result: dict[str, Any] = entry
        return result

    def executions(self, model: str) -> int:
        """How many batches of ``model`` a device has executed since the start."""
        return int(self.statistics(model).get("execution_count", 0))

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All samples of ``/metrics``: (name, sorted labels) -> value."""
        text = self.http.get("/metrics").text
        return {
            (written_name(sample.name), tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples called ``name`` that carry ``labels``; 0 if there are none."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, pairs), value in self.metrics().items()
            if found == name and wanted <= set(pairs)
        )

    def pending(self, model: str) -> float:
        """Requests of ``model`` that wait in its queue, as the metric says."""
        return self.metric("nv_inference_pending_request_count", model=model)

    def rss(self) -> int:
        """Resident memory of the process and its children in bytes."""
        total = 0
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def most_memory(self) -> int:
        """The most that the process itself has held at once so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))

    def descriptors(self) -> int:
        return int(self.process.num_fds())

    def threads(self) -> int:
        return int(self.process.num_threads())


def written_name(name: str) -> str:
    """The name of a sample as the page has it: the parser makes all counters' names end in _total."""
    return name.removesuffix("_total") if name.startswith("nv_") else name


def eventually(condition: Any, what: str, guard: float = 45.0) -> None:
    """Poll until ``condition()`` is true; AssertionError naming ``what`` at the guard."""
    end = time.monotonic() + guard
    while not condition():
        assert time.monotonic() < end, f"never happened within {guard} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def running(repository: Path, folder: Path, *args: Any, **options: Any) -> Iterator[RunningServer]:
    """A server for the length of a ``with`` block; it must then stop cleanly and have logged no traceback."""
    server = RunningServer(repository, folder, *args, **options)
    try:
        yield server
        status = server.stop()
    finally:
        server.kill()
    assert status == 0, f"exit status {status} after SIGTERM:\n{server.log}"
    assert_clean_log(server.log)


def assert_clean_log(log: str) -> None:
    """A bad request is no defect: nothing a client sends may end in a traceback or a lost task."""
    for sign in (
        "Traceback (most recent call last)",
        "was never retrieved",
        "was never awaited",
        "was destroyed",
    ):
        assert sign not in log, f"the log says {sign!r}:\n{log[-6000:]}"


def assert_refused(reply: httpx.Response, status: int, *words: str) -> str:
    """The reply is an error of the contract: this status, the face's shape, every word, and no leak.

    Returns the message."""
    assert reply.status_code == status, f"wanted {status}, got {reply.status_code}: {reply.text[:500]}"
    error = reply.json()["error"]
    message: str = error if isinstance(error, str) else error["message"]
    assert message
    if reply.url.path.startswith("/v1/"):
        assert set(error) == {"message", "type", "param", "code"}
    else:
        assert isinstance(error, str)
    for word in words:
        assert word.lower() in message.lower(), f"{word!r} is not in {message!r}"
    assert_no_leak(reply.text)
    if status in (429, 503):
        assert float(reply.headers["Retry-After"]) >= 0
    return message


def assert_no_leak(text: str) -> None:
    """No traceback, no source file, no folder of this machine."""
    for sign in ("Traceback", 'File "', "site-packages", "/tmp/", "/home/", "/root/", ".py:", "0x7f"):
        assert sign not in text, f"the reply leaks {sign!r}: {text[:500]}"


@contextlib.contextmanager
def running_service(
    name: str,
    repository: Path,
    folder: Path,
    environment: Mapping[str, str],
    arguments: Sequence[str] = (),
) -> Iterator[int]:
    """One ``nonet service NAME`` process for the length of a ``with`` block; gives its gRPC port. It must
    then stop cleanly and have logged no traceback."""
    folder.mkdir(parents=True)
    port, log_path = free_port(), folder / "service.log"
    command = [sys.executable, "-m", "nonet.cli.main", "service", name]
    command += ["--port", str(port), "--repository", str(repository), *arguments]
    variables = {
        **os.environ,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=variables)
    try:
        eventually(lambda: str(port) in log_path.read_text(), "the service is ready", READY_GUARD)
        yield port
        process.terminate()
        assert process.wait(STOP_GUARD) == 0, log_path.read_text()
    finally:
        process.kill()
        process.wait()
    assert_clean_log(log_path.read_text())
