"""The identifier as one ONNX graph, built from its arrays.

input   `rssi`          FP32 (B, M)   dBm; 0 = not heard
output  `distribution`  FP32 (B, K)   probability of each floor, bottom first
output  `known`         FP32 (B, 1)   probability that the scan is of this building; 0 if nothing is heard
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nonet.research.fis_one.graph import OFFSET, WEIGHTS
from nonet.research.fis_one.identifier import Arrays, energy_sums

OPSET = 17
_TINY = 1e-12


class _Graph:
    """Nodes and constants as they are added; each method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        name = result or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[np.generic] | float, kind: type = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def linear(self, value: str, matrix: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        """value @ matrix (+ bias)."""
        product = self.op("MatMul", value, self.constant(np.ascontiguousarray(matrix)))
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def row_sum(self, value: str) -> str:
        return self.op("ReduceSum", value, self.constant(np.array([1]), np.int64), keepdims=1)

    def divided(self, value: str, by: str) -> str:
        """value / by, with the divisor at least a tiny number."""
        return self.op("Div", value, self.op("Max", by, self.constant(_TINY)))

    def unit(self, value: str) -> str:
        """Rows divided by their length."""
        return self.divided(value, self.op("Sqrt", self.row_sum(self.op("Mul", value, value))))


def build_serving_graph(arrays: Arrays) -> bytes:
    """The serialised model for an identifier's arrays."""
    graph = _Graph()
    heard, weight = _weights(graph, arrays)
    count = graph.row_sum(heard)
    share = graph.divided(*((heard, count) if arrays["even"][0] else (weight, graph.row_sum(weight))))
    place = graph.linear(graph.unit(weight), arrays["directions"], None)
    logits = graph.op(
        "Add",
        graph.linear(_embedding(graph, arrays, share), arrays["embedding_head"].T, arrays["head_bias"]),
        graph.linear(place, arrays["direction_head"].T, None),
    )
    something = graph.op("Min", count, graph.constant(1.0))
    floors, transmitters = len(arrays["head_bias"]), len(arrays["outer_states"])
    trust = float(arrays["trust"][0])
    likely = graph.op("Softmax", graph.op("Mul", logits, something), axis=1)
    trusted = graph.op("Mul", likely, graph.constant(trust))
    graph.op("Add", trusted, graph.constant((1 - trust) / floors), result="distribution")
    _known(graph, arrays, place, count, something)
    made = helper.make_graph(
        graph.nodes,
        "floor_identification",
        [helper.make_tensor_value_info("rssi", TensorProto.FLOAT, ["batch", transmitters])],
        [
            helper.make_tensor_value_info("distribution", TensorProto.FLOAT, ["batch", floors]),
            helper.make_tensor_value_info("known", TensorProto.FLOAT, ["batch", 1]),
        ],
        graph.constants,
    )
    model = helper.make_model(made, producer_name="nonet", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _weights(graph: _Graph, arrays: Arrays) -> tuple[str, str]:
    """What is heard, as 0 and 1, and the edge weights."""
    weakest, kind, sharpness = (float(value) for value in arrays["rule"])
    audible = graph.op("GreaterOrEqual", "rssi", graph.constant(weakest))
    there = graph.op("Less", "rssi", graph.constant(0.0))
    heard = graph.op("Cast", graph.op("And", audible, there), to=TensorProto.FLOAT)
    if WEIGHTS[int(kind)] == "offset":
        weight = graph.op("Add", "rssi", graph.constant(OFFSET))
    else:
        scale, shift = (sharpness, 90.0) if WEIGHTS[int(kind)] == "sharp" else (10.0, 0.0)
        inside = graph.op("Mul", "rssi", heard)  # nothing unheard reaches the exponential
        level = graph.op("Add", inside, graph.constant(shift))
        weight = graph.op("Exp", graph.op("Mul", level, graph.constant(np.log(10) / scale)))
    return heard, graph.op("Mul", weight, heard)


def _embedding(graph: _Graph, arrays: Arrays, share: str) -> str:
    """The two aggregation rounds; a new scan's own initial state is zero, so its half of W_1 drops out."""
    wide = arrays["outer_states"].shape[1]
    outer = graph.linear(share, arrays["outer_states"], None)
    hidden = graph.op("Relu", graph.linear(outer, arrays["first.weight"][:, wide:].T, arrays["first.bias"]))
    inner = graph.linear(share, arrays["inner_states"], None)
    both = graph.op("Concat", hidden, inner, axis=1)
    return graph.unit(graph.linear(both, arrays["second.weight"].T, arrays["second.bias"]))


def _known(graph: _Graph, arrays: Arrays, place: str, count: str, something: str) -> None:
    energies = graph.linear(graph.op("Mul", place, place), energy_sums(arrays["directions"].shape[1]), None)
    plain, sized = (graph.linear(energies, row[1:, None], row[:1]) for row in arrays["known_head"])
    size = graph.op("Log", graph.op("Add", count, graph.constant(1.0)))
    logit = graph.op("Add", plain, graph.op("Mul", size, sized))
    graph.op("Mul", graph.op("Sigmoid", logit), something, result="known")
