"""A gateway that fits buildings with the toy worker, and what tests ask of it."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.running_server import RunningServer, eventually

TOY = Path(__file__).with_name("toy_worker.py")
BUILDINGS = "/v1/floors/buildings"
HOME = {"00:00:00:00:00:01": -40, "00:00:00:00:00:02": -60}
"""A scan of every building that :func:`upload` makes."""


def toy_settings(**jobs: Any) -> dict[str, dict[str, Any]]:
    """Settings of a server whose jobs the toy worker runs; ``jobs`` are further fields of that section."""
    return {
        "jobs": {
            "worker": [sys.executable, str(TOY)],
            "stop_seconds": 3.0,
            "lease_seconds": 5.0,
            # On a busy machine a process that steps back may not run at all for a while.
            "nice": 0,
            **jobs,
        },
        "scheduler": {"lanes": 1},
        "repository": {"poll_seconds": 0.0},
    }


def upload(building: str, **fields: Any) -> dict[str, Any]:
    """The JSON of a fit of three scans."""
    scans = [
        {"id": "a", "rssi": {"00:00:00:00:00:01": -40, "00:00:00:00:00:02": -60}},
        {"id": "b", "rssi": {"00:00:00:00:00:02": -55, "00:00:00:00:00:03": -70}},
        {"id": "c", "rssi": {"00:00:00:00:00:03": -50}},
    ]
    return {"building": building, "scans": scans, "labelled": {"scan": "a", "floor": "B1"}, **fields}


def submit(server: RunningServer, building: str, key: str = "", **fields: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return server.http.post(BUILDINGS, json=upload(building, **fields), headers=headers)


def submitted(server: RunningServer, building: str, **fields: Any) -> str:
    """Id of the job of a new fit."""
    reply = submit(server, building, **fields)
    assert reply.status_code == 202, reply.text
    job: str = reply.json()["job"]["id"]
    return job


def job_of(server: RunningServer, job: str) -> dict[str, Any]:
    reply = server.http.get(f"/v1/jobs/{job}")
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def wait_for(server: RunningServer, job: str, *states: str) -> dict[str, Any]:
    """The job, once it is in one of ``states``; AssertionError if it ends in another."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(job_of(server, job))
        assert found["state"] in states or found["ended_at"] is None, found
        return found["state"] in states

    eventually(there, f"job {job} is {states}", 90.0)
    return found


def under_way(server: RunningServer, job: str, progress: float = 0.1) -> dict[str, Any]:
    """The job, once it runs and has come as far as ``progress``."""
    eventually(lambda: job_of(server, job)["progress"] >= progress, f"job {job} has come to {progress}", 90.0)
    return job_of(server, job)


def worker_of(server: RunningServer) -> psutil.Process:
    """The process of the one job that runs."""
    (found,) = workers_of(server.popen.pid)
    return found


def workers_of(pid: int) -> list[psutil.Process]:
    return [
        each
        for each in psutil.Process(pid).children()
        if str(TOY) in _command(each) or "worker" in _command(each)
    ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    eventually(lambda: gone(process), "the process is gone")


def identify(server: RunningServer, building: str, *scans: dict[str, float]) -> httpx.Response:
    return server.http.post(
        f"{BUILDINGS}/{building}/identify", json={"scans": [{"rssi": scan} for scan in scans]}
    )


def events(
    server: RunningServer, job: str, after: int | None = None
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Name, id and job of each event of a job's stream, until it ends."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with server.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=60) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        name, number = "", 0
        for line in reply.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                number = int(value)
            elif field == "data":
                yield name, number, json.loads(value)


def state_folder(server: RunningServer) -> Path:
    """The folder that the server keeps its jobs in."""
    return Path(server.process.cwd()) / ".nonet" / "jobs"


def settle(seconds: float) -> None:
    """Let something that must not happen have its chance to."""
    time.sleep(seconds)


class Load:
    """Threads that identify the same scan of ``building`` without a pause, past the cache.

    ``by_client`` holds the versions that answered each of them, in its own order: answers to different
    clients may overtake each other on their way here.
    """

    def __init__(self, server: RunningServer, building: str) -> None:
        self.failures: list[str] = []
        self.by_client: list[list[str]] = [[], []]
        self._server, self._building = server, building
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seen,)) for seen in self.by_client]

    @property
    def versions(self) -> list[str]:
        """All of them, client by client."""
        return [version for seen in self.by_client for version in seen]

    def _run(self, seen: list[str]) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30) as http:
            while not self._stop.is_set():
                reply = http.post(
                    f"{BUILDINGS}/{self._building}/identify",
                    json={"scans": [{"rssi": HOME}]},
                    headers={"Cache-Control": "no-store"},
                )
                if reply.status_code == 200:
                    seen.append(reply.headers["X-Model-Version"])
                else:
                    self.failures.append(f"{reply.status_code} {reply.text}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
