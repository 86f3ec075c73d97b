"""A foreign regressor's graph: what its ends are, and a graph that gives ``value`` and ``std``.

What is served takes FP32 [N, F], [N, C, T] or [N, 3, H, W] and gives both as FP32 [N, D]. The standard
deviation is an output of the graph, the root of an output that is a variance, that of the members of an
ensemble, or, where the graph has none, one number for all rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nonet.runtime.errors import ModelRefused
from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused
from nonet.runtime.repository.graph import read_graph
from nonet.runtime.tensors import DataType, TensorSpec

__all__ = ["ForeignGraph", "read_foreign", "served_graph"]

_LARGEST_FILE: Final = 2_000_000_000  # an ONNX file is one protobuf message, which ends at 2 GiB
_STD: Final = ("std", "sigma", "stddev")
_VARIANCE: Final = ("var", "variance")
_AXES_AS_INPUT: Final = 18  # the opset from which ReduceMean takes its axes as an input


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignGraph:
    """What is known of a file before it is run.

    Args:
        model: the message, with all weights in it.
        given: its one input.
        value: its output with the values, or with those of the members.
        doubt: its output with standard deviations or variances; None if it has none.
        kind: ``std``, ``variance``, ``members`` or ``none``: where the standard deviation comes from.
    """

    model: Any
    given: TensorSpec
    value: TensorSpec
    doubt: TensorSpec | None
    kind: str

    @property
    def pictures(self) -> bool:
        """Whether it takes pictures."""
        return len(self.given.shape) == 4


def read_foreign(file: Path) -> ForeignGraph:
    """Read a file. Raises NetworkOfAnotherTask for what is no regressor, NetworkRefused if it is no sound
    ONNX file or cannot be served."""
    if file.is_dir():
        raise NetworkOfAnotherTask(f"'{file.name}' is a folder and not one ONNX file")
    if not file.is_file():
        raise NetworkRefused(f"there is no file '{file}'")
    if file.stat().st_size > _LARGEST_FILE:
        raise NetworkRefused(f"'{file.name}' is larger than 2 GB, which an ONNX file cannot be")
    try:
        graph = read_graph(file)
    except ModelRefused as refused:
        raise NetworkRefused(refused.reason) from None
    needed = [spec for spec in graph.inputs if not spec.optional]
    if len(needed) != 1 or not 1 <= len(graph.outputs) <= 2:
        raise NetworkOfAnotherTask(
            f"a regressor has one input and one output or two, this has {len(needed)} and "
            f"{len(graph.outputs)}"
        )
    given = needed[0]
    value, doubt, kind = _outputs(graph.outputs)
    if len(given.shape) not in (2, 3, 4):
        raise NetworkOfAnotherTask(
            f"a regressor takes rows [N, F], windows [N, C, T] or pictures, this takes {list(given.shape)}"
        )
    if len(given.shape) == 4 and "value" not in value.name.lower():
        raise NetworkOfAnotherTask(
            f"its output '{value.name}' for pictures may be a classifier's; a regressor's is called 'value'"
        )
    for spec in (given, value, doubt):
        if spec is not None and spec.datatype is not DataType.FP32:
            raise NetworkRefused(f"'{spec.name}' is {spec.datatype}; export it with FP32")
    if min(given.shape[1:]) < 1:
        raise NetworkRefused(f"its input {list(given.shape)} has a free size; export it with fixed ones")
    if given.shape[0] != -1:
        raise NetworkRefused(
            f"it takes {given.shape[0]} rows at a time; export it with a free batch dimension"
        )
    try:
        model = onnx.load_model(str(file), format="protobuf")
    except Exception as error:  # onnx and protobuf raise classes of their own
        raise NetworkRefused(f"it cannot be read whole: {str(error)[:200]}") from None
    return ForeignGraph(model, given, value, doubt, kind)


def _outputs(outputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, TensorSpec | None, str]:
    """The output with the values, the one with deviations, and what those are."""
    if len(outputs) == 1:
        return outputs[0], None, "members" if len(outputs[0].shape) == 3 else "none"
    doubtful = [
        (spec, kind)
        for spec in outputs
        for kind, names in (("std", _STD), ("variance", _VARIANCE))
        if any(spec.name.lower() == name or spec.name.lower().endswith(f"_{name}") for name in names)
    ]
    if len(doubtful) != 1:
        listed = ", ".join(spec.name for spec in outputs)
        raise NetworkOfAnotherTask(
            f"of its outputs {listed} none is called 'std' or 'variance': which is the uncertainty? Call "
            "them 'value' and 'std' in the export"
        )
    doubt, kind = doubtful[0]
    return next(spec for spec in outputs if spec is not doubt), doubt, kind


def served_graph(foreign: ForeignGraph, deviation: float) -> Any:
    """The graph with the outputs that are served, its input called ``inputs`` or ``image``.

    Args:
        foreign: the file.
        deviation: the standard deviation of all rows, where the graph has none.
    """
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    graph = model.graph
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1)
    name = "image" if foreign.pictures else "inputs"
    nodes, weights = _nodes(foreign, _renamed(graph, foreign), deviation, opset)
    place = next(index for index, value in enumerate(graph.input) if value.name == foreign.given.name)
    shape: list[str | int | None] = ["batch", *foreign.given.shape[1:]]
    before = []
    if name != foreign.given.name:
        before.append(helper.make_node("Identity", [name], [foreign.given.name], name="served_input"))
        graph.input[place].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    body = [*before, *graph.node, *nodes]
    del graph.node[:]
    graph.node.extend(body)
    graph.initializer.extend(weights)
    del graph.output[:]
    for each in ("value", "std"):
        graph.output.append(
            helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", _width(foreign)])
        )
    return model


def _width(foreign: ForeignGraph) -> int:
    shape = foreign.value.shape
    return 1 if len(shape) == 1 else int(shape[-1])


def _renamed(graph: Any, foreign: ForeignGraph) -> dict[str, str]:
    """Give the outputs names of their own, since ``value`` and ``std`` are those of what is served; the new
    names by the old."""
    renamed = {spec.name: f"own_{spec.name}" for spec in (foreign.value, foreign.doubt) if spec is not None}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, each in enumerate(names):
                names[index] = renamed.get(each, each)
    return renamed


def _nodes(
    foreign: ForeignGraph, renamed: dict[str, str], deviation: float, opset: int
) -> tuple[list[Any], list[Any]]:
    """From the graph's outputs to ``value`` and ``std`` [N, D], and the weights of the nodes."""
    value = renamed[foreign.value.name]
    weights = [numpy_helper.from_array(np.array([-1, _width(foreign)], np.int64), "served_shape")]
    shaped = ["served_shape"]
    if foreign.kind == "members":
        away, square = "served_away", "served_square"
        mean, more = _mean("served_mean", value, 1, opset)
        spread, others = _mean("served_spread", square, 1, opset)
        nodes = [
            mean,
            helper.make_node("Sub", [value, "served_mean"], [away]),
            helper.make_node("Mul", [away, away], [square]),
            spread,
            helper.make_node("Sqrt", ["served_spread"], ["served_root"]),
            helper.make_node("Reshape", ["served_mean", *shaped], ["value"]),
            helper.make_node("Reshape", ["served_root", *shaped], ["std"]),
        ]
        return nodes, [*weights, *more, *others]
    nodes = [helper.make_node("Reshape", [value, *shaped], ["value"])]
    if foreign.doubt is None:
        weights += [numpy_helper.from_array(np.array([0], np.float32), "served_zero")]
        weights += [numpy_helper.from_array(np.array([deviation], np.float32), "served_deviation")]
        nodes.append(helper.make_node("Mul", ["value", "served_zero"], ["served_none"]))
        nodes.append(helper.make_node("Add", ["served_none", "served_deviation"], ["std"]))
        return nodes, weights
    doubt = renamed[foreign.doubt.name]
    if foreign.kind == "variance":
        nodes.append(helper.make_node("Sqrt", [doubt], ["served_root"]))
        doubt = "served_root"
    nodes.append(helper.make_node("Reshape", [doubt, *shaped], ["std"]))
    return nodes, weights


def _mean(name: str, source: str, axis: int, opset: int) -> tuple[Any, list[Any]]:
    """A node that means over an axis, which stays with size 1, and its weights."""
    if opset < _AXES_AS_INPUT:
        return helper.make_node("ReduceMean", [source], [name], axes=[axis], keepdims=1), []
    axes = numpy_helper.from_array(np.array([axis], np.int64), f"{name}_axes")
    return helper.make_node("ReduceMean", [source, f"{name}_axes"], [name], keepdims=1), [axes]
