"""Nodes and constants that are added to a foreign graph, so that it takes and gives what is served."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import helper, numpy_helper

TO_THE_END: Final = np.iinfo(np.int64).max
"""End of a slice that keeps everything from its start."""


class Nodes:
    """Nodes and constants to be added to a graph, each tensor with a name of its own that begins with
    ``mark``."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, *inputs: str, gives: str = "", **attributes: Any) -> str:
        """Add an operation; gives the name of its output."""
        name = gives or f"{self._mark}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a constant; gives its name."""
        name = f"{self._mark}/constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def columns(self, rows: str, first: int, end: int = TO_THE_END) -> str:
        """[N, A, end - first] of [N, A, columns]; ``end`` may count from behind."""
        bounds = (self.constant(np.array([each], dtype=np.int64)) for each in (first, end, 2))
        return self.add("Slice", rows, *bounds)

    def scaled(self, value: str, factor: float) -> str:
        """Every number times a factor."""
        return self.add("Mul", value, self.constant(np.float32(factor)))

    def reshaped(self, value: str, *shape: int) -> str:
        """0 keeps a size, -1 takes what is left."""
        return self.add("Reshape", value, self.constant(np.array(shape, dtype=np.int64)))


def keep_batches(graph: Any) -> None:
    """Reshapes to [1, ...] become reshapes to as many as come (0 keeps a size)."""
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    added = []
    for index, node in enumerate(graph.node):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        keeps = not any(each.name == "allowzero" and each.i for each in node.attribute)
        if shape is None or not keeps:
            continue
        sizes = numpy_helper.to_array(shape).copy()
        if sizes.ndim == 1 and len(sizes) > 1 and sizes[0] == 1:
            sizes[0] = 0
            added.append(numpy_helper.from_array(sizes, f"added/shape_{index}"))
            node.input[1] = added[-1].name
    graph.initializer.extend(added)
