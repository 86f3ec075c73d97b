"""Regressors of made-up data: one written down by hand, which needs no PyTorch, and one that is trained in
some seconds and can be adapted."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import Array, DataType, TensorSpec
from tests.support.handmade_networks import Port, network

FEATURES = ("area", "age", "noise")
THRESHOLD = 0.25
CALIBRATION = {"calibration": {"threshold": THRESHOLD, "intercept": 0.1, "slope": 2.0}, "space": "linear"}


def linear_graph(outputs: int = 1, names: tuple[str, str] = ("value", "std")) -> bytes:
    """``value`` = area + 10 age (of a second output twice that), ``std`` = the size of noise."""
    pick = np.zeros((3, outputs), np.float32)
    pick[2] = 1
    weights = np.array([[1.0], [10.0], [0.0]], np.float32) * np.arange(1, outputs + 1, dtype=np.float32)
    return network(
        [
            helper.make_node("MatMul", ["inputs", "weights"], [names[0]]),
            helper.make_node("MatMul", ["inputs", "pick"], ["signed"]),
            helper.make_node("Abs", ["signed"], [names[1]]),
        ],
        [Port("inputs", "FP32", (3,))],
        [Port(names[0], "FP32", (outputs,)), Port(names[1], "FP32", (outputs,))],
        {"weights": weights.astype(np.float32), "pick": pick},
    )


def publish_linear(
    root: Path,
    name: str,
    outputs: int = 1,
    *,
    batch: int = 64,
    companions: bool = False,
    lineage: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """Publish :func:`linear_graph`; returns its version. ``companions``: with files that stand for a network
    to train, so that a submit is accepted; what adapts refuses them."""
    source: dict[str, Any] = {
        "system": "test",
        "outputs": [f"y{index}" for index in range(outputs)],
        "units": ["m"] * outputs,
        "features": list(FEATURES),
        **({"lineage": dict(lineage)} if lineage else {}),
    }
    files: dict[str, bytes | Path] = {
        "model.onnx": linear_graph(outputs),
        "calibration.json": json.dumps(CALIBRATION).encode(),
    }
    if companions:
        files |= {"network.json": b'{"inputs": [3]}', "network.safetensors": b""}
    published = publish_version(
        root,
        name,
        files,
        build_config(
            name,
            max_batch_size=batch,
            inputs=[TensorSpec("inputs", DataType.FP32, (-1, 3))],
            outputs=[TensorSpec(each, DataType.FP32, (-1, outputs)) for each in ("value", "std")],
        ),
        Manifest(files={"model.onnx": "0" * 64}, source=source, task="regress", **more),
    )
    return published.version


def publish_windows(root: Path, name: str) -> None:
    """A regressor of windows [2, 4] whose value is the sum of the first channel."""
    graph = network(
        [
            helper.make_node("Gather", ["inputs", "first"], ["channel"], axis=1),
            helper.make_node("ReduceSum", ["channel", "axes"], ["value"], keepdims=0),
            helper.make_node("Mul", ["value", "none"], ["std"]),
        ],
        [Port("inputs", "FP32", (2, 4))],
        [Port("value", "FP32", (1,)), Port("std", "FP32", (1,))],
        {"first": np.array([0], np.int64), "axes": np.array([2], np.int64), "none": np.zeros(1, np.float32)},
    )
    publish_version(
        root,
        name,
        {"model.onnx": graph, "calibration.json": json.dumps(CALIBRATION).encode()},
        build_config(
            name,
            max_batch_size=16,
            inputs=[TensorSpec("inputs", DataType.FP32, (-1, 2, 4))],
            outputs=[TensorSpec(each, DataType.FP32, (-1, 1)) for each in ("value", "std")],
        ),
        Manifest(files={"model.onnx": "0" * 64}, source={"features": ["left", "right"]}, task="regress"),
    )


def publish_image_regressor(root: Path, name: str) -> None:
    """A regressor of images of 8 pixels whose value is the mean of their levels, 0 to 1."""
    graph = network(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["value"]),
            helper.make_node("Mul", ["value", "none"], ["std"]),
        ],
        [Port("image", "FP32", (3, 8, 8))],
        [Port("value", "FP32", (1,)), Port("std", "FP32", (1,))],
        {"last": np.array([1], np.int64), "none": np.zeros(1, np.float32)},
    )
    prepared = {"resize": 8, "crop": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3, "resize_type": "standard"}
    publish_version(
        root,
        name,
        {"model.onnx": graph, "calibration.json": json.dumps(CALIBRATION).encode()},
        build_config(
            name,
            max_batch_size=4,
            inputs=[TensorSpec("image", DataType.FP32, (-1, 3, 8, 8))],
            outputs=[TensorSpec(each, DataType.FP32, (-1, 1)) for each in ("value", "std")],
        ),
        Manifest.model_validate(
            {"files": {"model.onnx": "0" * 64}, "task": "regress", "preprocessing": prepared}
        ),
    )


# -- one that can be adapted -------------------------------------------------------------------


def source_rows(count: int, seed: int = 0) -> tuple[Array, Array]:
    """Inputs FP32 [N, 3] and labels FP64 [N, 1] of where the model comes from."""
    random = np.random.default_rng(seed)
    inputs = random.uniform((0.0, -1.0, 0.0), (4.0, 1.0, 1.0), (count, 3))
    return inputs.astype(np.float32), _labels(inputs, random)


def site_rows(count: int, seed: int = 1) -> Array:
    """Inputs FP32 [N, 3] of a site: labels of two kinds, and some rows further out than the source's."""
    random = np.random.default_rng(seed)
    small, far = random.random(count) < 0.7, random.random(count) < 0.15
    area = np.where(small, random.normal(0.8, 0.1, count), random.normal(2.0, 0.1, count))
    age = np.where(far, random.uniform(2.0, 3.0, count), random.uniform(-1, 1, count))
    return np.stack([area, age, random.uniform(0, 1, count)], axis=1).astype(np.float32)


def _labels(inputs: Array, random: np.random.Generator) -> Array:
    exact = 2 * inputs[:, :1] + np.sin(2 * inputs[:, 1:2])
    found: Array = exact + random.normal(0, 0.1, exact.shape) * inputs[:, 2:]
    return found


def trained(epochs: int = 25) -> Any:
    """A small network with dropout (``Answering``), trained on :func:`source_rows`; needs PyTorch."""
    import torch

    from nonet.research.tasfar.networks import NetworkSpec, SourceNetwork
    from nonet.research.tasfar.uncertainty import Answering, UncertaintySpec

    torch.manual_seed(0)
    inputs, labels = source_rows(1200)
    network = SourceNetwork(NetworkSpec("mlp", (3,), widths=(32, 32), tail=(16,), dropout=0.2))
    given, wanted = torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.float32))
    network.scale_by(given, wanted)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    network.train()
    for _ in range(epochs):
        for part in torch.randperm(len(given)).split(100):
            loss = (network(given[part]) - wanted[part]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Answering(network.eval(), UncertaintySpec()).eval()


def publish_trained(root: Path, name: str, *, epochs: int = 25, **more: Any) -> str:
    """Publish :func:`trained`; returns its version."""
    import torch

    from nonet.research.tasfar.adaptation import Recipe
    from nonet.research.tasfar.release import Release, publish_regressor
    from nonet.research.tasfar.uncertainty import estimates_of
    from nonet.research.tasfar.version_files import source_facts

    answering = trained(epochs)
    held, truth = source_rows(600, seed=7)
    estimates = estimates_of(answering, torch.from_numpy(held))
    facts = source_facts(estimates, truth, Recipe(width=0.25, rate=2e-4, epochs=5), "linear")
    release = Release(["price"], ["m"], FEATURES, "built by the test suite", family=more.pop("family", ""))
    return publish_regressor(root, name, answering, facts, release).version


def table(rows: Array, header: tuple[str, ...] = FEATURES) -> bytes:
    """Rows as CSV."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows(rows.tolist())
    return out.getvalue().encode()
