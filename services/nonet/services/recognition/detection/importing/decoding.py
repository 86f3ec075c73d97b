"""Nodes that turn what exported detectors give into what is served: corners in pixels, and a score a class.

What is served is ``boxes`` FP32 [N, A, 4], corners x1, y1, x2, y2 in pixels of the network's square, and
``scores`` FP32 [N, A, C], 0 to 1. A place is a row that may hold an object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np
from onnx import TensorProto

from nonet.runtime.tensors import Array
from nonet.services.recognition.importing.graph_nodes import Nodes

STRIDES: Final[tuple[tuple[int, ...], ...]] = ((8, 16, 32), (8, 16, 32, 64))
"""Of the grids of cells on which one-stage detectors find objects, in pixels."""
MOST_PADDED: Final = 300
"""Places of a network that gives as many as it finds; it gives the best first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """The square that goes in, in pixels, how many classes are served, and on which grids objects are found
    (of no meaning to networks without)."""

    side: int
    classes: int
    strides: tuple[int, ...] = STRIDES[0]


Decode = Callable[[Nodes, tuple[str, ...], Frame], tuple[str, str]]
"""From the outputs of a network, floats as FP32, to boxes and scores: names of tensors."""


def channels_first(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """[N, 4 + C, A]: centre and size in pixels, then scores."""
    rows = nodes.add("Transpose", outputs[0], perm=[0, 2, 1])
    return _corners(nodes, nodes.columns(rows, 0, 4)), nodes.columns(rows, 4)


def six_columns(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """[N, A, 6]: corners in pixels, score, class."""
    scores, classes = nodes.columns(outputs[0], 4, 5), nodes.columns(outputs[0], 5, 6)
    return nodes.columns(outputs[0], 0, 4), _by_class(nodes, classes, scores, frame)


def objectness_per_cell(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """[N, A, 5 + C] raw: centre from the cell in cells, logarithm of the size in cells, objectness, scores.

    Z. Ge et al., "YOLOX", arXiv 2107.08430: cells of each stride in rows, the finest first.
    """
    cells, strides = grid(frame.side, frame.strides)
    places = nodes.add("Add", nodes.columns(outputs[0], 0, 2), nodes.constant(cells))
    sizes = nodes.add("Exp", nodes.columns(outputs[0], 2, 4))
    pixels = nodes.constant(strides)
    centred = [nodes.add("Mul", each, pixels) for each in (places, sizes)]
    boxes = _corners(nodes, nodes.add("Concat", *centred, axis=2))
    return boxes, _with_objectness(nodes, outputs[0])


def objectness(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """[N, A, 5 + C] decoded: centre and size in pixels, objectness, scores."""
    return _corners(nodes, nodes.columns(outputs[0], 0, 4)), _with_objectness(nodes, outputs[0])


def sigmoid_queries(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """Centre and size 0..1 [N, A, 4], logits [N, A, C or more]; what is more than the classes is nothing."""
    scores = nodes.columns(nodes.add("Sigmoid", outputs[1]), 0, frame.classes)
    return nodes.scaled(_corners(nodes, outputs[0]), frame.side), scores


def softmax_queries(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """Centre and size 0..1 [N, A, 4], logits [N, A, C + 1], the last of them of no object."""
    scores = nodes.columns(nodes.add("Softmax", outputs[1], axis=2), 0, -1)
    return nodes.scaled(_corners(nodes, outputs[0]), frame.side), scores


def scored_boxes(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """[N, A, 5], corners in pixels and score, and classes [N, A]; A may differ from picture to picture."""
    classes = nodes.reshaped(outputs[1], 0, -1, 1)
    scores = _by_class(nodes, classes, nodes.columns(outputs[0], 4, 5), frame)
    return _padded(nodes, nodes.columns(outputs[0], 0, 4)), _padded(nodes, scores)


def sorted_queries(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """Corners in pixels [N, A, 4], scores [N, A] and classes [N, A]."""
    scores, classes = (nodes.reshaped(each, 0, -1, 1) for each in outputs[1:])
    return outputs[0], _by_class(nodes, classes, scores, frame)


def one_picture(nodes: Nodes, outputs: tuple[str, ...], frame: Frame) -> tuple[str, str]:
    """Of one picture, as many as are found: corners in pixels [A, 4], scores [A] and classes [A]."""
    boxes = nodes.reshaped(outputs[0], 1, -1, 4)
    scores, classes = (nodes.reshaped(each, 1, -1, 1) for each in outputs[1:])
    return _padded(nodes, boxes), _padded(nodes, _by_class(nodes, classes, scores, frame))


def grid(side: int, strides: tuple[int, ...]) -> tuple[Array, Array]:
    """Column and row of each cell FP32 [1, A, 2], and its stride in pixels FP32 [1, A, 1]."""
    cells, sizes = [], []
    for stride in strides:
        count = side // stride
        rows, columns = np.mgrid[:count, :count]
        cells.append(np.stack((columns, rows), -1).reshape(1, -1, 2))
        sizes.append(np.full((1, count * count, 1), stride))
    return np.concatenate(cells, 1).astype(np.float32), np.concatenate(sizes, 1).astype(np.float32)


def places_of(side: int, strides: tuple[int, ...]) -> int:
    """How many cells the grids of a square have together."""
    return sum((side // stride) ** 2 for stride in strides)


def _corners(nodes: Nodes, boxes: str) -> str:
    centres, halves = nodes.columns(boxes, 0, 2), nodes.scaled(nodes.columns(boxes, 2, 4), 0.5)
    ends = [nodes.add(kind, centres, halves) for kind in ("Sub", "Add")]
    return nodes.add("Concat", *ends, axis=2)


def _with_objectness(nodes: Nodes, rows: str) -> str:
    return nodes.add("Mul", nodes.columns(rows, 4, 5), nodes.columns(rows, 5))


def _by_class(nodes: Nodes, classes: str, scores: str, frame: Frame) -> str:
    """Scores [N, A, C] of indices and scores [N, A, 1]: 0 for every other class."""
    indices = nodes.add("Cast", classes, to=TensorProto.INT64)
    every = nodes.constant(np.arange(frame.classes, dtype=np.int64).reshape(1, 1, -1))
    same = nodes.add("Cast", nodes.add("Equal", indices, every), to=TensorProto.FLOAT)
    return nodes.add("Mul", same, scores)


def _padded(nodes: Nodes, rows: str) -> str:
    """The first MOST_PADDED places of [N, A, columns], with zeros behind if there are fewer."""
    more = nodes.constant(np.array([0, 0, 0, 0, MOST_PADDED, 0], dtype=np.int64))
    bounds = (nodes.constant(np.array([each], dtype=np.int64)) for each in (0, MOST_PADDED, 1))
    return nodes.add("Slice", nodes.add("Pad", rows, more), *bounds)
