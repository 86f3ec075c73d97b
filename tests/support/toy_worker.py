"""A worker whose "fits" take no PyTorch: it publishes a handmade network, or misbehaves as a name says.

Run by the gateway instead of ``nonet worker`` (setting ``jobs.worker``); everything around the fit is real.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nonet.cli.job_process import run_one, say_kinds
from nonet.jobs import Assignment
from nonet.runtime.errors import InvalidArgument, PermissionDenied
from nonet.runtime.job_context import JobContext
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.scans import Scans
from nonet.runtime.task import Accepted, Upload, Work
from nonet.services.floor_identification.building_names import FIT, SCANS, network_of, not_yours

STEPS = 40
STEP_SECONDS = 0.1


def accept_nothing(upload: Upload) -> Accepted:
    raise NotImplementedError("the gateway accepts, in its own process")


def network(transmitters: int, floors: int, seed: int) -> bytes:
    """``rssi`` [N, M] to ``distribution`` [N, K] and ``known`` [N, 1]: a random linear map, and whether
    anything was heard."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(seed).normal(size=(transmitters, floors)).astype(np.float32)
    constants = {"W": weights, "axes": np.array([1], np.int64), "scale": np.array([50], np.float32)}
    nodes = [
        helper.make_node("Div", ["rssi", "scale"], ["near"]),
        helper.make_node("MatMul", ["near", "W"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["distribution"], axis=1),
        helper.make_node("ReduceL1", ["near", "axes"], ["power"], keepdims=1),
        helper.make_node("Tanh", ["power"], ["known"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("rssi", TensorProto.FLOAT, ["N", transmitters])],
        [
            helper.make_tensor_value_info("distribution", TensorProto.FLOAT, ["N", floors]),
            helper.make_tensor_value_info("known", TensorProto.FLOAT, ["N", 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def publish(
    repository: Path,
    building: str,
    scans: Scans,
    facts: Mapping[str, Any],
    seed: int,
    job: str,
    owner: str = "",
    net: bytes = b"",
) -> str:
    """Publish a building as a real fit does, with a network of its own or ``net``; returns the version."""
    floors = ["B1", "F1", "F2"]
    count = len(scans.transmitters)
    config = (
        f'name: "{network_of(building)}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 64\n'
        f'input [{{ name: "rssi" data_type: TYPE_FP32 dims: [ {count} ] }}]\n'
        f'output [{{ name: "distribution" data_type: TYPE_FP32 dims: [ {len(floors)} ] }},\n'
        '        { name: "known" data_type: TYPE_FP32 dims: [ 1 ] }]\n'
    )
    files: dict[str, bytes | Path] = {
        "model.onnx": net or network(count, len(floors), seed),
        "transmitters.txt": "".join(f"{name}\n" for name in scans.transmitters).encode(),
        "building.json": json.dumps({"scans": len(scans), "warnings": ["a toy"], **facts}).encode(),
        "picture.png": b"\x89PNG\r\n\x1a\n" + b"toy",
    }
    manifest = Manifest(
        files={"model.onnx": "0" * 64},
        task="floor-identification",
        command=f"toy {job}",
        quality={"purity": 1.0},
        owner=owner,
    )
    version = publish_version(
        repository, network_of(building), files, config, manifest, labels=floors, replace=True
    )
    return version.version


def fit(task: JobContext) -> Mapping[str, Any]:
    """What the first word of the building's name says, then a published building."""
    building = str(task.spec["building"])
    manner = building.split("_")[0]
    scans = Scans.load(task.input(SCANS))
    checkpoint = task.folder / "checkpoint"
    begun_at = int(checkpoint.read_text()) if checkpoint.is_file() else 0
    if manner == "slow":
        for step in range(begun_at, STEPS):
            task.report(step / STEPS, "toying")
            time.sleep(STEP_SECONDS)
            checkpoint.with_suffix(".new").write_text(str(step + 1))
            checkpoint.with_suffix(".new").replace(checkpoint)
    elif manner == "crash":
        task.report(0.4, "crashing")
        time.sleep(0.7)
        os.kill(os.getpid(), signal.SIGKILL)
    elif manner == "hang":
        subprocess.Popen(["sleep", "600"])
        task.report(0.1, "hanging")
        time.sleep(600)
    elif manner == "greedy":
        hoard: list[bytes] = []
        while True:
            task.report(0.2, "growing")
            hoard.append(b"\1" * (16 << 20))
            time.sleep(0.05)
    elif manner == "broken":
        raise RuntimeError("secret /etc/path of a defect")
    elif manner == "refused":
        raise InvalidArgument("the labelled scan holds no usable reading", param="labelled")
    elif manner == "hungry":
        raise MemoryError
    facts, seed = {"begun_at": begun_at}, int(task.spec["seed"])
    try:
        version = publish(task.repository, building, scans, facts, seed, task.job, task.tenant)
    except PermissionDenied:
        raise not_yours(building) from None
    return {"building": building, "model": network_of(building), "version": version}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    for name in ("state", "job", "owner", "log-format"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    for name in ("parent", "memory-bytes", "nice"):
        parser.add_argument(f"--{name}", type=int, default=0)
    for name in ("lease-seconds", "stop-seconds"):
        parser.add_argument(f"--{name}", type=float, default=10.0)
    given = parser.parse_args()
    missing = os.environ.get("TOY_MISSING", "")
    kinds = {FIT: Work(FIT, f"{__name__}:{fit.__name__}", accept_nothing, "Submit", publishes=network_of)}
    if given.list:
        say_kinds(kinds, {FIT: missing})
        return 0
    assignment = Assignment(
        given.job,
        given.owner,
        given.lease_seconds,
        given.stop_seconds,
        given.parent,
        given.memory_bytes,
        given.nice,
    )
    return run_one(kinds, Path(given.state), given.repository, assignment)


if __name__ == "__main__":
    sys.exit(main())
