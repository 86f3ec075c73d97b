"""What is read of an ONNX file before any engine sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.graph import read_graph
from nonet.runtime.tensors import DataType, TensorSpec
from tests.support import handmade_networks


def value(name: str, shape: list[object] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(path: Path, graph: onnx.GraphProto, ir_version: int = 10) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    path.write_bytes(model.SerializeToString())
    return path


def external(name: str, location: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("datatype", list(DataType))
def test_every_type_is_known(tmp_path: Path, datatype: DataType) -> None:
    folder = handmade_networks.add_identity(tmp_path, "echo", datatype.value, (-1, 3))
    graph = read_graph(folder / "model.onnx")
    assert graph.inputs == (TensorSpec("x", datatype, (-1, -1, 3)),)
    assert graph.outputs == (TensorSpec("y", datatype, (-1, -1, 3)),)
    assert graph.can_batch
    assert graph.external_files == ()


def test_a_fixed_leading_dimension_cannot_batch(tmp_path: Path) -> None:
    folder = handmade_networks.add_identity(tmp_path, "echo", "FP32", (2, 3), batch=0)
    assert not read_graph(folder / "model.onnx").can_batch


@pytest.mark.parametrize(("ir_version", "names"), [(10, ["x", "w"]), (3, ["x"])])
def test_weights_listed_as_inputs_are_defaults_or_nothing(
    tmp_path: Path, ir_version: int, names: list[str]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value("x", ["N", 4]), value("w", [4])],
        [value("y", ["N", 4])],
        [numpy_helper.from_array(np.ones(4, np.float32), "w")],
    )
    read = read_graph(save(tmp_path / "model.onnx", graph, ir_version))
    assert [spec.name for spec in read.inputs] == names
    assert [spec.optional for spec in read.inputs] == [False, True][: len(names)]


def test_external_weights_are_found_wherever_they_hide(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external("inner", "inner.bin"))],
        "branch",
        [],
        [value("c", [4])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
            helper.make_node("Constant", [], ["k"], value=external("attribute", "attribute.bin")),
        ],
        "g",
        [value("flag", [], TensorProto.BOOL)],
        [value("y", [4])],
        [external("w", "sub/weights.bin")],
    )
    read = read_graph(save(tmp_path / "model.onnx", graph))
    assert read.external_files == ("attribute.bin", "inner.bin", "sub/weights.bin")


def test_what_cannot_be_served_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    node = helper.make_node("Identity", ["x"], ["y"])
    unranked = helper.make_graph([node], "g", [value("x", None)], [value("y", None)])
    with pytest.raises(ModelRefused, match="'x' has no declared rank"):
        read_graph(save(path, unranked))
    kind = TensorProto.COMPLEX64
    complexes = helper.make_graph([node], "g", [value("x", [1], kind)], [value("y", [1], kind)])
    with pytest.raises(ModelRefused, match="'x' has element type COMPLEX64"):
        read_graph(save(path, complexes))
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1])
    with pytest.raises(ModelRefused, match="'x' is not a tensor"):
        read_graph(save(path, helper.make_graph([node], "g", [sequence], [value("y", [1])])))
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_graph(tmp_path / "none.onnx")


def test_no_prefix_of_a_network_passes_for_one(tmp_path: Path) -> None:
    """A copy that was cut short anywhere is refused."""
    whole = handmade_networks.classifier(2)
    path = tmp_path / "model.onnx"
    path.write_bytes(whole)
    read_graph(path)
    for length in [0, 1, 2, *range(3, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelRefused, match="cut short"):
            read_graph(path)


def test_a_pickle_is_not_a_network(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.")
    with pytest.raises(ModelRefused, match="not a valid ONNX file"):
        read_graph(path)
