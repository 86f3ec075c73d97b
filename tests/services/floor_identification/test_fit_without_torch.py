"""A fit where PyTorch is not installed, as after ``make run``: the server, its worker and its answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.building_gateway import BUILDINGS, identify, toy_settings, wait_for
from tests.support.running_server import RunningServer
from tests.support.synthetic_building import scans

Start = Callable[..., RunningServer]

WORKER = Path(__file__).parents[2] / "support" / "short_fit_worker.py"
WITHOUT_TORCH = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "pyarrow", "networkx", "onnxscript"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
"""
"""What ``sitecustomize`` runs in every Python process of the server."""


@pytest.mark.timeout(300)
def test_a_building_is_fitted_and_identified_without_torch(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(WITHOUT_TORCH)
    environment = {"PYTHONPATH": os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")])}
    tried = subprocess.run([sys.executable, "-c", "import torch"], env=os.environ | environment, stderr=-1)
    assert b"No module named 'torch'" in tried.stderr
    settings = toy_settings(worker=[sys.executable, str(WORKER)], stop_seconds=8.0)
    server = start_server(own_repository, settings, environment=environment)
    walked = scans(per_floor=12)
    reply = server.http.post(
        BUILDINGS,
        json={
            "building": "hall",
            "scans": [{"id": scan, "rssi": rssi} for scan, _, rssi in walked],
            "labelled": {"scan": walked[0][0], "floor": "B1"},
            "floors": 3,
        },
    )
    assert reply.status_code == 202, reply.text
    ended = wait_for(server, reply.json()["job"]["id"], "succeeded")
    assert ended["attempts"] == 1
    new = scans(seed=1, per_floor=5)
    answers = identify(server, "hall", *(rssi for _, _, rssi in new)).json()["floors"]
    right = sum(answer["floor"] == floor for answer, (_, floor, _) in zip(answers, new, strict=True))
    assert right >= 13, answers
