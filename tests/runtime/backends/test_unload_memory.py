"""Unloading gives the memory back, and serving does not grow; measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nonet.runtime.backends import installed_backends
from tests.support import handmade_networks

PROGRAM = """
import json, sys, threading
from pathlib import Path
import numpy as np, psutil
from nonet.runtime.backends import BackendOptions, backend
from nonet.runtime.tensors import DataType, TensorSpec

engine, path, width = backend(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
inputs = [TensorSpec("x", DataType.FP32, (-1, 1024))]
outputs = [TensorSpec("y", DataType.FP32, (-1, width))]
rss = lambda: psutil.Process().memory_info().rss

def load():
    return engine.load(path, inputs, outputs, precision="fp32", options=BackendOptions(concurrency=2))

def use(network, rounds):
    def ask():
        for step in range(rounds):
            network.infer({"x": np.ones((1 + step % 8, 1024), np.float32)}, ["y"])
    threads = [threading.Thread(target=ask) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

def round_trip():
    network = load()
    use(network, 8)
    loaded = rss()
    network.unload()
    del network
    return loaded, rss()

first = round_trip()
later = [round_trip() for _ in range(2)]
network = load()
use(network, 16)
warm = rss()
use(network, 64)
print(json.dumps({"first": first, "later": later, "warm": warm, "used": rss()}))
"""


@pytest.mark.parametrize("engine", [engine.name for engine in installed_backends()])
def test_memory_returns_after_unload_and_stays_flat_in_use(tmp_path: Path, engine: str) -> None:
    mebibytes = 100
    version = handmade_networks.add_heavy(tmp_path, "heavy", mebibytes)
    command = [sys.executable, "-c", PROGRAM, engine, str(version / "model.onnx"), str(mebibytes * 256)]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    _, before = facts["first"]
    for loaded, after in facts["later"]:
        assert loaded - after > 80 * 2**20, facts
        assert after < before * 1.05, facts
    assert facts["used"] < facts["warm"] * 1.05, facts
