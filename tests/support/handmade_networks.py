"""Tiny networks with known behaviour, written into a model repository in Triton's layout.

Each one exists to make one promise testable: identities for every data type, a pair with two inputs and two
outputs, networks that are slow, that answer NaN, that fail for some values, that hold much memory, and a
classifier of random images. All are built with ``onnx.helper``; none is trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
LABELS = ("apple", "banana", "carrot", "milk", "bread")
IMAGE_SIZE = 32
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_BUSY_SIDE = 192


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """An input or output: name, protocol data type, dims as ``config.pbtxt`` has them (no batch)."""

    name: str
    datatype: str
    dims: tuple[int, ...]


def _value(port: Port, batched: bool) -> onnx.ValueInfoProto:
    shape: list[Any] = ["batch"] if batched else []
    shape += [f"{port.name}_{axis}" if dim < 0 else dim for axis, dim in enumerate(port.dims)]
    return helper.make_tensor_value_info(port.name, ONNX_TYPES[port.datatype], shape)


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    batched: bool = True,
) -> bytes:
    """A serialised ONNX model of ``nodes``, checked by ONNX's own checker."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [_value(port, batched) for port in inputs],
        [_value(port, batched) for port in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _config(name: str, inputs: Sequence[Port], outputs: Sequence[Port], batch: int, labels: bool) -> str:
    def block(port: Port, extra: str = "") -> str:
        kind = "TYPE_STRING" if port.datatype == "BYTES" else f"TYPE_{port.datatype}"
        dims = ", ".join(str(dim) for dim in port.dims)
        return f'  {{ name: "{port.name}" data_type: {kind} dims: [ {dims} ]{extra} }}'

    label_line = ' label_filename: "labels.txt"' if labels else ""
    return (
        f'name: "{name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: {batch}\n'
        + "input [\n"
        + ",\n".join(block(port) for port in inputs)
        + "\n]\noutput [\n"
        + ",\n".join(block(port, label_line) for port in outputs)
        + "\n]\nversion_policy: { all { } }\n"
    )


def manifest(files: Mapping[str, bytes], **extra: Any) -> bytes:
    """``manifest.json`` with the hashes of ``files`` and ``extra`` on top."""
    content = {
        "schema": 1,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "source": {"system": "test", "variant": "handmade"},
        "command": "built by the test suite",
        "data": [],
        "quality": {},
        "licence": "Apache-2.0",
        "credit": "",
        "task": "",
        "family": "",
        "allow_nonfinite": False,
        "created": "2026-01-01T00:00:00Z",
    }
    content.update(extra)
    return json.dumps(content).encode()


def write_version(
    root: Path, name: str, version: int, files: Mapping[str, bytes], *, facts: Mapping[str, Any] | None = None
) -> Path:
    """Put a version into ``root`` as a careful publisher does: written aside, then renamed."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    aside = root / f".{name}.{version}.{os.getpid()}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for file, data in files.items():
        (aside / file).write_bytes(data)
    (aside / "manifest.json").write_bytes(manifest(files, **(facts or {})))
    final = folder / str(version)
    aside.rename(final)
    return final


def add_model(
    root: Path,
    name: str,
    model: bytes,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    batch: int = 8,
    version: int = 1,
    labels: Sequence[str] = (),
    extra_files: Mapping[str, bytes] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write model ``name`` with its configuration, labels and one version; returns the version's folder."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(_config(name, inputs, outputs, batch, bool(labels)))
    if labels:
        (folder / "labels.txt").write_text("\n".join(labels) + "\n")
    return write_version(root, name, version, {"model.onnx": model, **(extra_files or {})}, facts=facts)


def add_identity(root: Path, name: str, datatype: str, dims: tuple[int, ...], **options: Any) -> Path:
    """``y = x``."""
    x, y = Port("x", datatype, dims), Port("y", datatype, dims)
    batched = options.get("batch", 8) > 0
    model = network([helper.make_node("Identity", ["x"], ["y"])], [x], [y], batched=batched)
    return add_model(root, name, model, [x], [y], **options)


def add_scaled(root: Path, name: str, factor: float, version: int) -> Path:
    """``y = factor * x``: the answer tells which version gave it."""
    x, y = Port("x", "FP32", (-1,)), Port("y", "FP32", (-1,))
    model = network(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], [x], [y], {"factor": np.float32([factor])}
    )
    return add_model(root, name, model, [x], [y], version=version)


def add_pair(root: Path, name: str) -> Path:
    """Two inputs, two outputs: ``sum = a + b``, ``difference = a - b`` (a FP32, b INT32)."""
    inputs = [Port("a", "FP32", (-1,)), Port("b", "INT32", (-1,))]
    outputs = [Port("sum", "FP32", (-1,)), Port("difference", "FP32", (-1,))]
    nodes = [
        helper.make_node("Cast", ["b"], ["b32"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "b32"], ["sum"]),
        helper.make_node("Sub", ["a", "b32"], ["difference"]),
    ]
    return add_model(root, name, network(nodes, inputs, outputs), inputs, outputs)


def add_logarithm(root: Path, name: str, **options: Any) -> Path:
    """``y = log(x)``: NaN for a negative element, -Inf for zero, a number otherwise."""
    x, y = Port("x", "FP32", (4,)), Port("y", "FP32", (4,))
    model = network([helper.make_node("Log", ["x"], ["y"])], [x], [y])
    return add_model(root, name, model, [x], [y], **options)


def add_lookup(root: Path, name: str) -> Path:
    """``row = table[index]`` with 16 rows: an index outside makes ONNX Runtime fail the whole batch."""
    index, row = Port("index", "INT64", (1,)), Port("row", "FP32", (4,))
    table = np.random.default_rng(7).standard_normal((16, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Squeeze", ["index", "axis"], ["flat"]),
        helper.make_node("Gather", ["table", "flat"], ["row"], axis=0),
    ]
    model = network(nodes, [index], [row], {"table": table, "axis": np.int64([1])})
    return add_model(root, name, model, [index], [row])


def busy_nodes(trips: int, source: str = "x") -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that make ``answer``, which is ``source``, after ``trips`` matrix products that no optimiser can
    leave out."""
    side = _BUSY_SIDE
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("MatMul", ["state", "weight"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [side, side]),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", [source], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Add", ["seed", "nothing"], ["start"]),
        helper.make_node("Loop", ["trips", "", "start"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["work"], keepdims=0),
        helper.make_node("Mul", ["work", "zero"], ["silence"]),
        helper.make_node("Add", [source, "silence"], ["answer"]),
    ]
    rng = np.random.default_rng(11)
    weights = {
        "zero": np.float32(0),
        "trips": np.int64(trips),
        "seed": rng.standard_normal((side, side)).astype(np.float32),
        "weight": (rng.standard_normal((side, side)) / np.sqrt(side)).astype(np.float32),
    }
    return nodes, weights


def busy_trips(seconds: float) -> int:
    """How many products take about ``seconds`` of processor time, so at least as long on any clock."""
    x, y = Port("x", "FP32", (1,)), Port("y", "FP32", (1,))
    probe = 50
    nodes, weights = busy_nodes(probe)
    model = network([*nodes, helper.make_node("Identity", ["answer"], ["y"])], [x], [y], weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    best = float("inf")
    for _ in range(4):
        start = time.thread_time()
        session.run(None, {"x": np.zeros((1, 1), np.float32)})
        best = min(best, time.thread_time() - start)
    return max(1, round(seconds * probe / best))


def add_slow(root: Path, name: str, trips: int, *, batch: int, logarithm: bool = False) -> Path:
    """``y = x`` (or ``log x``) after ``trips`` matrix products, whatever the batch."""
    x, y = Port("x", "FP32", (1,)), Port("y", "FP32", (1,))
    nodes, weights = busy_nodes(trips)
    nodes.append(helper.make_node("Log" if logarithm else "Identity", ["answer"], ["y"]))
    model = network(nodes, [x], [y], weights, batched=batch > 0)
    return add_model(root, name, model, [x], [y], batch=batch)


def add_heavy(root: Path, name: str, mebibytes: int) -> Path:
    """``y = x @ W`` where ``W`` takes ``mebibytes`` of memory."""
    x, y = Port("x", "FP32", (1024,)), Port("y", "FP32", (mebibytes * 256,))
    weight = np.random.default_rng(3).random((1024, mebibytes * 256), dtype=np.float32)
    model = network([helper.make_node("MatMul", ["x", "weight"], ["y"])], [x], [y], {"weight": weight})
    return add_model(root, name, model, [x], [y])


def add_broad(root: Path, name: str, mebibytes: int, *, batch: int) -> Path:
    """``y = sum(tanh(x @ W))`` with few weights, whose rows take ``mebibytes`` of memory each on the way."""
    x, y = Port("x", "FP32", (1,)), Port("y", "FP32", (1,))
    weight = np.random.default_rng(5).random((1, mebibytes << 18), dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["broad"]),
        helper.make_node("Tanh", ["broad"], ["bent"]),
        helper.make_node("ReduceSum", ["bent", "axis"], ["y"], keepdims=1),
    ]
    model = network(nodes, [x], [y], {"weight": weight, "axis": np.int64([1])})
    return add_model(root, name, model, [x], [y], batch=batch)


def classifier(width: int, *, blind_to_white: bool = False) -> bytes:
    """A convolutional classifier of 32x32 RGB images into five classes, random weights, batch-invariant.

    With ``blind_to_white`` an image that is white all over is answered with NaN.
    """
    rng = np.random.default_rng(width)
    image = Port("image", "FP32", (3, IMAGE_SIZE, IMAGE_SIZE))
    logits = Port("logits", "FP32", (len(LABELS),))
    weights = {
        "w1": (rng.standard_normal((width, 3, 3, 3)) * 0.4).astype(np.float32),
        "b1": rng.standard_normal(width).astype(np.float32),
        "w2": (rng.standard_normal((len(LABELS), width, 1, 1)) * 0.6).astype(np.float32),
        "b2": rng.standard_normal(len(LABELS)).astype(np.float32),
        "shape": np.int64([-1, len(LABELS)]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "w2", "b2"], ["c2"]),
        helper.make_node("Reshape", ["c2", "shape"], ["raw"]),
    ]
    if blind_to_white:
        weights |= {"column": np.int64([-1, 1]), "white": np.float32(2)}
        nodes += [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3]),
            helper.make_node("Sub", ["white", "mean"], ["room"]),
            helper.make_node("Log", ["room"], ["bias"]),
            helper.make_node("Reshape", ["bias", "column"], ["bias_column"]),
            helper.make_node("Add", ["raw", "bias_column"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["raw"], ["logits"]))
    return network(nodes, [image], [logits], weights)


def add_classifier(
    root: Path, name: str, width: int, *, family: str, top1: float, blind_to_white: bool = False
) -> Path:
    """A classification network of ``family``, so that ``classify.<name>`` exists beside it."""
    model = classifier(width, blind_to_white=blind_to_white)
    image = Port("image", "FP32", (3, IMAGE_SIZE, IMAGE_SIZE))
    logits = Port("logits", "FP32", (len(LABELS),))
    facts: dict[str, Any] = {
        "task": "classification",
        "family": family,
        "quality": {"top1": top1, "dataset": "none", "split": "none"},
        "preprocessing": {
            "resize": IMAGE_SIZE,
            "crop": IMAGE_SIZE,
            "interpolation": "bicubic",
            "mean": list(MEAN),
            "std": list(STD),
        },
    }
    facts["check_set"] = "check.safetensors"
    extra = {"check.safetensors": _check_set(root, model)}
    return add_model(root, name, model, [image], [logits], labels=LABELS, extra_files=extra, facts=facts)


def _check_set(root: Path, model: bytes) -> bytes:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(5).standard_normal((8, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    (logits,) = session.run(["logits"], {"image": images})
    path = root / ".check.safetensors"
    save_file({"image": images, "logits": logits}, path)
    data = path.read_bytes()
    path.unlink()
    return data


def build_repository(root: Path, *, slow_seconds: float = 0.2) -> Path:
    """The repository that most fault tests share."""
    root.mkdir(parents=True, exist_ok=True)
    for datatype in ONNX_TYPES:
        add_identity(root, f"echo_{datatype.lower()}", datatype, (-1,))
    add_identity(root, "fixed_fp32", "FP32", (4,))
    add_identity(root, "unbatched", "FP32", (2, 3), batch=0)
    add_identity(root, "wild_fp32", "FP32", (-1,), facts={"allow_nonfinite": True})
    add_scaled(root, "scaled", 10.0, 1)
    add_scaled(root, "scaled", 20.0, 2)
    add_pair(root, "pair")
    add_logarithm(root, "logarithm")
    add_lookup(root, "lookup")
    trips = busy_trips(slow_seconds)
    add_slow(root, "slow", trips, batch=0)
    add_slow(root, "slow_batch", trips, batch=8)
    add_slow(root, "slow_logarithm", trips, batch=0, logarithm=True)
    add_classifier(root, "tinynet", 8, family="tiny", top1=0.5)
    add_classifier(root, "tinynet_large", 16, family="tiny", top1=0.7)
    add_classifier(root, "nannet", 8, family="brittle", top1=0.1, blind_to_white=True)
    broken = add_scaled(root, "truncated", 1.0, 1)
    whole = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").write_bytes(whole[: len(whole) // 2])
    return root


def build_small_repository(root: Path, *, slow_seconds: float = 0.3) -> Path:
    """An identity and a slow network: for servers that are started often, since each start warms up."""
    root.mkdir(parents=True, exist_ok=True)
    add_identity(root, "echo_fp32", "FP32", (-1,))
    add_slow(root, "slow", busy_trips(slow_seconds), batch=0)
    return root
