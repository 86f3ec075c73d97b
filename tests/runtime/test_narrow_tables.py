"""Networks whose tables are 8-bit answer the same with their rows widened one by one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nonet.runtime.narrow_tables import widen_rows_only

ROWS, COLUMNS = 40, 6


def network(scale: NDArray[np.float32], axis: int = 0) -> bytes:
    """Rows (or columns) of an int8 table times a scale, plus one."""
    generator = np.random.default_rng(0)
    table = generator.integers(-128, 128, (ROWS, COLUMNS)).astype(np.int8)
    nodes = [
        helper.make_node("Cast", ["table"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["scaled"]),
        helper.make_node("Gather", ["scaled", "ids"], ["rows"], axis=axis),
        helper.make_node("Add", ["rows", "one"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(scale, "scale"),
            numpy_helper.from_array(np.float32(1), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def answer(content: bytes) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    ids = np.array([[0, 3, 3, 5], [5, 1, 2, 0]], np.int64)
    found: NDArray[np.float32] = session.run(None, {"ids": ids})[0]
    return found


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (COLUMNS,), (1, COLUMNS), (ROWS, 1)])
def test_rows_are_looked_up_first_and_the_numbers_stay(shape: tuple[int, ...]) -> None:
    scale = np.asarray(np.random.default_rng(1).random(shape), np.float32)
    before = network(scale)
    after = widen_rows_only(before)
    first = onnx.load_model_from_string(after).graph.node[0]
    assert (first.op_type, list(first.input)) == ("Gather", ["table", "ids"])
    np.testing.assert_array_equal(answer(after), answer(before))


def test_other_lookups_are_left_as_they_are() -> None:
    scale = np.ones((ROWS, COLUMNS), np.float32)
    for content in (network(scale), network(np.float32(2) * np.ones(1, np.float32), axis=1)):
        assert widen_rows_only(content) == content
