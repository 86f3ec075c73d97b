"""A gateway that develops captures as jobs with the real worker, and what tests ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.support import handmade_captures, handmade_networks
from tests.support.running_server import RunningServer

DEVELOP = "/v1/raw/develop"
ASYNC = {"Prefer": "respond-async"}
QUICK, SLOW = "stand_in", "slow_in"
CAPTURE = handmade_captures.npy(handmade_captures.capture())
LONG = handmade_captures.npy(handmade_captures.capture(280, 560))
"""A capture of 200 tiles."""


def settings(**jobs: Any) -> dict[str, dict[str, Any]]:
    """Settings of a server whose jobs the real worker runs; ``jobs`` are further fields of that section."""
    return {
        # On a busy machine a process that steps back may not run at all for a while.
        "jobs": {"stop_seconds": 5.0, "lease_seconds": 5.0, "nice": 0, **jobs},
        "scheduler": {"lanes": 1, "default_timeout": 300.0},
        "repository": {"poll_seconds": 0.0, "preferred_families": ["bilinear"]},
    }


def fill_repository(root: Path, seconds: float = 0.06) -> Path:
    """A quick stand-in for a restoration network, and one whose every execution takes ``seconds``."""
    handmade_captures.add_restorer(root, QUICK)
    handmade_captures.add_restorer(root, SLOW, trips=handmade_networks.busy_trips(seconds))
    return root


def submit(
    server: RunningServer, raw: bytes = CAPTURE, *, key: str = "", model: str = QUICK, **fields: Any
) -> httpx.Response:
    headers = ASYNC | ({"Idempotency-Key": key} if key else {})
    data = {"cfa": "RGGB", "model": model, **fields}
    return server.http.post(DEVELOP, files={"raw": ("capture.npy", raw)}, data=data, headers=headers)


def submitted(server: RunningServer, raw: bytes = CAPTURE, **fields: Any) -> str:
    """Id of the job of a new capture."""
    reply = submit(server, raw, **fields)
    assert reply.status_code == 202, reply.text
    job: str = reply.json()["job"]["id"]
    return job


def developed(
    server: RunningServer, raw: bytes = CAPTURE, *, model: str = QUICK, **fields: Any
) -> httpx.Response:
    """What the route answers who waits."""
    data = {"cfa": "RGGB", "model": model, **fields}
    reply = server.http.post(DEVELOP, files={"raw": ("capture.npy", raw)}, data=data)
    assert reply.status_code == 200, reply.text
    return reply


def result_of(server: RunningServer, job: str) -> httpx.Response:
    return server.http.get(f"/v1/jobs/{job}/result")
