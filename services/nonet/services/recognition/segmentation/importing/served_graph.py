"""A foreign segmentation network's graph with the ends that are served: a picture in, maps of logits out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.services.recognition.importing import graph_ends
from nonet.services.recognition.importing.graph_nodes import Nodes, keep_batches

INPUT: Final = "image"
OUTPUT: Final = "logits"
Maps = Literal["logits", "probabilities", "independent logits", "independent probabilities", "classes"]
"""What the network gives at each place: a logit or a probability of each class, of which one is true or
("independent") several may be; or the number of the class."""

_PREFIX: Final = "network/"
_FIRST_OPSET: Final = 11
_FLOATS: Final = (DataType.FP32, DataType.FP16)
_INTEGERS: Final = (DataType.INT64, DataType.INT32, DataType.UINT8)
_SURE: Final = 1e-6  # nearest that a probability may come to 0 and 1
_NEVER: Final = -1e4  # logit of a background that the network does not know
_UNKNOWN: Final = 0.5  # of a background among ones and zeros: true where no class is
_BY_NAME: Final = ("out", "logits", "output")


@dataclasses.dataclass(frozen=True, slots=True)
class Segmenter:
    """A segmentation network's file.

    Args:
        model: the message with all weights.
        image: the input.
        maps: the output that has them, [N, C, h, w] of floats, or [N, h, w] or [N, 1, h, w] of integers.
    """

    model: Any
    image: TensorSpec
    maps: TensorSpec

    @property
    def numbers(self) -> bool:
        """Whether it gives the number of a class at each place."""
        return self.maps.datatype in _INTEGERS

    @property
    def last_operation(self) -> str:
        """The operation that makes the maps."""
        return graph_ends.Ends(self.model, self.image, self.maps).last_operation


def read_segmenter(file: Path) -> Segmenter:
    """Read a file. Raises NetworkOfAnotherTask if it gives no maps of a picture, NetworkRefused if it is no
    sound ONNX file."""
    graph = graph_ends.read_interface(file)
    needed = [spec for spec in graph.inputs if not spec.optional]
    if len(needed) != 1:
        listed = ", ".join(spec.name for spec in needed) or "none"
        raise NetworkOfAnotherTask(f"a network of masks has one input, this has {len(needed)}: {listed}")
    maps = _maps(graph.outputs)
    image = graph_ends.picture_input(needed[0])
    return Segmenter(graph_ends.read_whole(file, graph.external_files), image, maps)


def _maps(outputs: tuple[TensorSpec, ...]) -> TensorSpec:
    """The output that has them: the only one, or one of the usual names beside those of training."""
    shown = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in outputs)
    fitting = [spec for spec in outputs if _are_maps(spec)]
    named = [spec for spec in fitting if spec.name in _BY_NAME]
    alone = [spec for spec in outputs if spec.name != "aux"]
    if len(alone) > 1 or not fitting:
        raise NetworkOfAnotherTask(
            f"it gives {shown}; a network of masks gives one output, [N, classes, h, w] of FP32 or FP16, or "
            "[N, h, w] of integers"
        )
    return (named or fitting)[0]


def _are_maps(spec: TensorSpec) -> bool:
    shape = spec.shape
    if len(shape) == 4:
        several = all(side != 1 for side in shape[2:])
        return several and (spec.datatype in _FLOATS or (spec.datatype in _INTEGERS and shape[1] in (1, -1)))
    return len(shape) == 3 and spec.datatype in _INTEGERS


def served_graph(
    segmenter: Segmenter,
    maps: Maps,
    *,
    layout: str,
    channels: str,
    classes: int,
    background: bool,
    free: bool,
) -> Any:
    """The graph that takes ``image`` FP32 [N, 3, side, side], RGB, and gives ``logits`` FP32 [N, C, h, w].

    Args:
        segmenter: the file.
        maps: what its output means.
        layout, channels: of the picture that the network takes.
        classes: of the network.
        background: whether one is put before the classes of a network that has none among them.
        free: whether reshapes to a batch of one are made to keep the batch that comes. Whether a graph then
            gives right answers to several pictures must be tried.

    Raises NetworkRefused if its opset is too old.
    """
    opset = next((each.version for each in segmenter.model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _FIRST_OPSET:
        raise NetworkRefused(f"its opset {opset} is too old; export it with {_FIRST_OPSET} or newer")
    model = compose.add_prefix(segmenter.model, _PREFIX)
    graph = model.graph
    if free:
        keep_batches(graph)
    before, after = Nodes("before"), Nodes("after")
    last = INPUT
    for kind, constant, attributes in graph_ends.input_steps(segmenter.image, layout, channels):
        more = [] if constant is None else [before.constant(constant)]
        last = before.add(kind, last, *more, **attributes)
    before.add("Identity", last, gives=_PREFIX + segmenter.image.name)
    value = _logits(after, _PREFIX + segmenter.maps.name, segmenter, maps, classes)
    if background:
        one = after.add("Slice", value, *(after.constant(np.array([each], np.int64)) for each in (0, 1, 1)))
        nothing = after.scaled(one, 0.0)
        level = _UNKNOWN if maps == "classes" else _NEVER
        value = after.add(
            "Concat", after.add("Add", nothing, after.constant(np.float32(level))), value, axis=1
        )
    after.add("Identity", value, gives=OUTPUT)
    fed = _PREFIX + segmenter.image.name
    side = "side"
    kept = [each for each in graph.input if each.name != fed]
    nodes = [*before.nodes, *graph.node, *after.nodes]
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.weights, *after.weights])
    graph.input.extend([_value(INPUT, (3, side, side)), *kept])
    graph.output.append(_value(OUTPUT, (classes + background, "height", "width")))
    return model


def _logits(nodes: Nodes, given: str, segmenter: Segmenter, maps: Maps, classes: int) -> str:
    if maps == "classes":
        numbers = nodes.add("Cast", given, to=TensorProto.INT64)
        axes = (1, classes, 1, 1) if len(segmenter.maps.shape) == 4 else (classes, 1, 1, 1)
        each = nodes.constant(np.arange(classes, dtype=np.int64).reshape(axes))
        ones = nodes.add("Cast", nodes.add("Equal", numbers, each), to=TensorProto.FLOAT)
        return ones if axes[0] == 1 else nodes.add("Transpose", ones, perm=[1, 0, 2, 3])
    if segmenter.maps.datatype is DataType.FP16:
        given = nodes.add("Cast", given, to=TensorProto.FLOAT)
    if maps != "independent probabilities":
        return given
    least, most = (nodes.constant(np.float32(each)) for each in (_SURE, 1 - _SURE))
    inside = nodes.add("Min", nodes.add("Max", given, least), most)
    rest = nodes.add("Sub", nodes.constant(np.float32(1)), inside)
    return nodes.add("Sub", nodes.add("Log", inside), nodes.add("Log", rest))


def _value(name: str, axes: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *axes])
