"""A foreign detector's graph with the ends that are served: one picture in, boxes and scores out."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from nonet.runtime.network_import import NetworkRefused
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.services.recognition.detection.detect import BOXES, SCORES
from nonet.services.recognition.detection.importing.decoding import Decode, Frame
from nonet.services.recognition.detection.importing.layouts import MASK, SIZES
from nonet.services.recognition.importing.graph_ends import input_steps
from nonet.services.recognition.importing.graph_nodes import Nodes, keep_batches

INPUT: Final = "image"
_PREFIX: Final = "network/"
_FIRST_OPSET: Final = 11  # of Pad and Slice with tensors as bounds
_ELEMENTS: Final = {
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.INT64: TensorProto.INT64,
    DataType.INT32: TensorProto.INT32,
    DataType.BOOL: TensorProto.BOOL,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Detector:
    """A detector's file: the message with all weights, its inputs and outputs.

    Args:
        model: the message.
        image: the input that takes the picture, with a batch axis even if the graph has none.
        one_picture: whether the graph has no batch axis.
        others: further inputs, of the kinds that can be made from the picture's size.
        outputs: all outputs.
    """

    model: Any
    image: TensorSpec
    one_picture: bool
    others: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def served_graph(
    detector: Detector,
    read: tuple[str, ...],
    decode: Decode,
    frame: Frame,
    *,
    layout: str,
    channels: str,
    free: bool,
) -> Any:
    """The graph that takes ``image`` FP32 [N, 3, side, side], RGB, and gives ``boxes`` and ``scores``.

    Args:
        detector: the file.
        read: names of the outputs that ``decode`` takes.
        decode: what makes boxes and scores of them.
        frame: size and classes.
        layout, channels: of the picture that the network takes.
        free: whether reshapes to a batch of one are made to keep the batch that comes. Whether a graph then
            gives right answers to several pictures must be tried.

    Raises NetworkRefused if its opset is too old.
    """
    opset = next((each.version for each in detector.model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _FIRST_OPSET:
        raise NetworkRefused(f"its opset {opset} is too old; export it with {_FIRST_OPSET} or newer")
    model = compose.add_prefix(detector.model, _PREFIX)
    graph = model.graph
    if free:
        keep_batches(graph)
    before, after = Nodes("before"), Nodes("after")
    _feed(before, detector, frame, layout, channels)
    datatypes = {spec.name: spec.datatype for spec in detector.outputs}
    outputs = tuple(
        after.add("Cast", _PREFIX + name, to=TensorProto.FLOAT)
        if datatypes[name] is DataType.FP16
        else _PREFIX + name
        for name in read
    )
    boxes, scores = decode(after, outputs, frame)
    after.add("Identity", boxes, gives=BOXES)
    after.add("Identity", scores, gives=SCORES)
    nodes = [*before.nodes, *graph.node, *after.nodes]
    fed = {_PREFIX + spec.name for spec in (detector.image, *detector.others)}
    kept = [each for each in graph.input if each.name not in fed]
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.weights, *after.weights])
    graph.input.extend([_value(INPUT, (3, frame.side, frame.side)), *kept])
    graph.output.extend([_value(BOXES, ("places", 4)), _value(SCORES, ("places", frame.classes))])
    return model


def _feed(nodes: Nodes, detector: Detector, frame: Frame, layout: str, channels: str) -> None:
    """What the network takes, of the picture that is served."""
    last = INPUT
    for kind, constant, attributes in input_steps(detector.image, layout, channels):
        more = [] if constant is None else [nodes.constant(constant)]
        last = nodes.add(kind, last, *more, **attributes)
    if detector.one_picture:
        last = nodes.reshaped(last, *(3 if size == 3 else frame.side for size in detector.image.shape[1:]))
    nodes.add("Identity", last, gives=_PREFIX + detector.image.name)
    if not detector.others:
        return
    bounds = (nodes.constant(np.array([each], dtype=np.int64)) for each in (0, 1, 0))
    batch = nodes.add("Slice", nodes.add("Shape", INPUT), *bounds)
    for spec in detector.others:
        sides = (frame.side, frame.side)
        value: str
        if spec.name == SIZES:
            pixels = nodes.constant(np.array([sides], dtype=np.int64))
            shape = nodes.add("Concat", batch, nodes.constant(np.array([2], dtype=np.int64)), axis=0)
            value = nodes.add("Expand", pixels, shape)
        else:  # of a mask, which says that everything is picture
            known = [size if size > 0 else frame.side for size in spec.shape[1:]]
            rest = nodes.constant(np.array(known, dtype=np.int64))
            shape = nodes.add("Concat", batch, rest, axis=0)
            value = nodes.add("Expand", nodes.constant(np.ones([1] * len(spec.shape), dtype=np.int64)), shape)
        nodes.add("Cast", value, to=_ELEMENTS[spec.datatype], gives=_PREFIX + spec.name)


def can_be_fed(spec: TensorSpec) -> bool:
    """Whether an input beside the picture can be made from the picture's size."""
    rank = {SIZES: 2, MASK: 3}.get(spec.name)
    return rank == len(spec.shape) and spec.datatype in _ELEMENTS


def _value(name: str, axes: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *axes])
