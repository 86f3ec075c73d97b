"""What an ONNX file says of itself: inputs, outputs and the other files it needs. Reads, never runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from nonet.runtime.errors import ModelRefused
from nonet.runtime.tensors import DataType, TensorSpec

_DATATYPES: dict[int, DataType] = {
    TensorProto.BOOL: DataType.BOOL,
    TensorProto.UINT8: DataType.UINT8,
    TensorProto.UINT16: DataType.UINT16,
    TensorProto.UINT32: DataType.UINT32,
    TensorProto.UINT64: DataType.UINT64,
    TensorProto.INT8: DataType.INT8,
    TensorProto.INT16: DataType.INT16,
    TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64,
    TensorProto.FLOAT16: DataType.FP16,
    TensorProto.BFLOAT16: DataType.BF16,
    TensorProto.FLOAT: DataType.FP32,
    TensorProto.DOUBLE: DataType.FP64,
    TensorProto.STRING: DataType.BYTES,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX graph's interface.

    Shapes are the file's own: -1 where free, no batch dimension added. ``optional`` inputs have a default
    inside the file. ``external_files`` are names of further files that hold weights.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external_files: tuple[str, ...]

    @property
    def can_batch(self) -> bool:
        """Whether every input and output has a free leading dimension."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))


def read_graph(path: Path) -> Graph:
    """Read the interface of the ONNX file at ``path``. Raises ModelRefused if it is not a sound ONNX file."""
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelRefused(
            f"model file '{path.name}' cannot be read ({error.strerror})", permanent=False
        ) from None
    except Exception:  # protobuf's parser raises classes of its own that differ between its builds
        raise ModelRefused(f"model file '{path.name}' is not a valid ONNX file, or is cut short") from None
    graph = model.graph
    if not graph.output or not model.opset_import:
        raise ModelRefused(f"model file '{path.name}' is not a valid ONNX file, or is cut short")
    defaults = {tensor.name for tensor in graph.initializer}
    defaults |= {tensor.values.name for tensor in graph.sparse_initializer}
    # From IR version 4 on, an input with an initialiser is a default that may be overridden; before, every
    # weight had to be listed as an input too, and none of them is meant to be fed.
    overridable = model.ir_version >= 4
    inputs = tuple(
        _spec(value, optional=value.name in defaults)
        for value in graph.input
        if overridable or value.name not in defaults
    )
    outputs = tuple(_spec(value) for value in graph.output)
    return Graph(inputs, outputs, tuple(sorted(set(_external_files(model)))))


def _spec(value: onnx.ValueInfoProto, *, optional: bool = False) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelRefused(f"'{value.name}' is not a tensor; only tensors can be served")
    tensor = value.type.tensor_type
    datatype = _DATATYPES.get(tensor.elem_type)
    if datatype is None:
        name = TensorProto.DataType.Name(tensor.elem_type)
        raise ModelRefused(f"'{value.name}' has element type {name}, which the protocol does not have")
    if not tensor.HasField("shape"):
        raise ModelRefused(f"'{value.name}' has no declared rank; export it with a shape")
    shape = tuple(
        dimension.dim_value if dimension.WhichOneof("value") == "dim_value" else -1
        for dimension in tensor.shape.dim
    )
    return TensorSpec(value.name, datatype, shape, optional)


def _external_files(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    yield entry.value


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the file, wherever it hides: initialisers, node attributes, subgraphs, functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield sparse.values
                yield sparse.indices
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)
