"""The ends of a foreign graph: what they are, and a graph with the ends that are served.

What is served takes FP32 [N, 3, side, side], RGB, and gives logits FP32 [N, classes]. Conversions are nodes
at the graph's ends; a graph that needs none stays as it is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nonet.runtime.errors import ModelRefused
from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused
from nonet.runtime.repository.graph import Graph, read_graph
from nonet.runtime.tensors import Array, DataType, TensorSpec
from nonet.services.recognition.importing.facts import side

LARGEST_FILE: Final = 2_000_000_000  # an ONNX file is one protobuf message, which ends at 2 GiB
_INPUT_TYPES: Final = (DataType.FP32, DataType.FP16, DataType.UINT8)
_OUTPUT_TYPES: Final = (DataType.FP32, DataType.FP16)
_PASSING: Final = (
    "Identity",
    "Cast",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Dropout",
    "QuantizeLinear",
    "DequantizeLinear",
)
_LEAST: Final = 1e-37  # of a probability, so that its logarithm is finite
_FIRST_OPSET: Final = 8  # of Max with operands of different shapes


@dataclasses.dataclass(frozen=True, slots=True)
class Ends:
    """A classifier's graph: the file's message with all weights in it, its one input and its one output."""

    model: Any
    image: TensorSpec
    scores: TensorSpec

    @property
    def metadata(self) -> Mapping[str, str]:
        return {each.key: each.value for each in self.model.metadata_props}

    @property
    def last_operation(self) -> str:
        """The operation that makes the output, those passed over that change no value."""
        makers = {output: node for node in self.model.graph.node for output in node.output}
        name = self.scores.name
        while (node := makers.get(name)) is not None and node.op_type in _PASSING and node.input:
            name = node.input[0]
        return str(node.op_type) if node is not None else ""


def read_ends(file: Path) -> Ends:
    """Read a file. Raises NetworkOfAnotherTask if it is no network from one picture to one list of scores,
    NetworkRefused if it is no sound ONNX file."""
    graph = read_interface(file)
    needed = [spec for spec in graph.inputs if not spec.optional]
    if len(needed) != 1:
        listed = ", ".join(spec.name for spec in needed) or "none"
        raise NetworkOfAnotherTask(
            f"a classifier of pictures has one input, this has {len(needed)}: {listed}"
        )
    scores = _scores(graph.outputs)
    image = picture_input(needed[0])
    return Ends(read_whole(file, graph.external_files), image, scores)


def read_interface(file: Path) -> Graph:
    """Inputs and outputs of a file. Raises NetworkOfAnotherTask for a folder, NetworkRefused if it is no
    sound ONNX file."""
    if file.is_dir():
        raise NetworkOfAnotherTask(f"'{file.name}' is a folder and not one ONNX file")
    if not file.is_file():
        raise NetworkRefused(f"there is no file '{file}'")
    if file.stat().st_size > LARGEST_FILE:
        raise NetworkRefused(f"'{file.name}' is larger than 2 GB, which an ONNX file cannot be")
    try:
        return read_graph(file)
    except ModelRefused as refused:
        raise NetworkRefused(refused.reason) from None


def read_metadata(file: Path) -> Mapping[str, str]:
    """What the exporter wrote into a file that :func:`read_interface` reads."""
    model = onnx.load_model(str(file), format="protobuf", load_external_data=False)
    return {each.key: each.value for each in model.metadata_props}


def layout_of(image: TensorSpec) -> str:
    """``nchw`` or ``nhwc`` by where the three colours are; "" if that is open."""
    first, last = image.shape[1] == 3, image.shape[3] == 3
    return "" if first == last else "nchw" if first else "nhwc"


def served_graph(ends: Ends, *, layout: str, channels: str, probabilities: bool) -> Any:
    """The graph with the ends that are served, and a free batch dimension.

    Whether it then gives right answers to several pictures at once must be tried.
    """
    model = onnx.ModelProto()
    model.CopyFrom(ends.model)
    graph = model.graph
    before, weights = _input_nodes(ends, layout, channels)
    after, more = _output_nodes(ends, probabilities)
    if after and probabilities and _opset(model) < _FIRST_OPSET:
        raise NetworkRefused(f"its opset {_opset(model)} is too old; export it with {_FIRST_OPSET} or newer")
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*weights, *more])
    place = next(index for index, value in enumerate(graph.input) if value.name == ends.image.name)
    if before:
        graph.input[place].CopyFrom(_value(_free(ends, "image"), 4))
    if after:
        graph.output[0].CopyFrom(_value(_free(ends, "logits"), 2))
    for value in (graph.input[place], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def picture_input(image: TensorSpec) -> TensorSpec:
    """The same input. Raises NetworkRefused if it takes no pictures of three colours, NetworkOfAnotherTask if
    it takes no pictures at all."""
    shown = f"'{image.name}' {image.datatype} {list(image.shape)}"
    if len(image.shape) in (2, 3):
        raise NetworkOfAnotherTask(
            f"its input {shown} takes no pictures of three colours ([N, 3, H, W] or [N, H, W, 3])"
        )
    if image.datatype not in _INPUT_TYPES:
        raise NetworkRefused(f"its input {shown} is not FP32, FP16 or UINT8")
    if len(image.shape) != 4 or not any(image.shape[axis] in (3, -1) for axis in (1, 3)):
        raise NetworkRefused(
            f"its input {shown} takes no pictures of three colours ([N, 3, H, W] or [N, H, W, 3])"
        )
    return image


def square_side(image: TensorSpec, layout: str) -> int | None:
    """Side of the square that goes in, None where open. Raises NetworkRefused if it takes no squares."""
    height, width = image.shape[2:4] if layout == "nchw" else image.shape[1:3]
    if height < 0 and width < 0:
        return None
    if -1 not in (height, width) and height != width:
        raise NetworkRefused(f"it takes pictures of {width} x {height}: only square inputs can be served")
    return side(max(height, width), "the side of its input")


def _scores(outputs: tuple[TensorSpec, ...]) -> TensorSpec:
    shown = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in outputs)
    if len(outputs) != 1:
        raise NetworkOfAnotherTask(
            f"a classifier has one output, this has {len(outputs)} ({shown}): it looks like a network of "
            "another task"
        )
    (scores,) = outputs
    flat = len(scores.shape) >= 2 and all(size == 1 for size in scores.shape[2:])
    if not flat or scores.datatype not in _OUTPUT_TYPES:
        raise NetworkOfAnotherTask(
            f"its output {shown} is not [N, classes] of FP32 or FP16, as a classifier's is: it looks like a "
            "network of another task"
        )
    return scores


def read_whole(file: Path, external: tuple[str, ...]) -> Any:
    """The message with all weights in it."""
    total = file.stat().st_size
    for name in external:
        path = file.parent / name
        if os.path.isabs(name) or ".." in Path(name).parts or path.is_symlink():
            raise NetworkRefused(f"its weights are to be read from '{name}', which is not beside it")
        if not path.is_file():
            raise NetworkRefused(
                f"its weights are in '{name}', which is missing: copy it beside '{file.name}'"
            )
        total += path.stat().st_size
    if total > LARGEST_FILE:
        raise NetworkRefused(
            "with its weights it is larger than 2 GB, which is more than one ONNX file holds"
        )
    try:
        return onnx.load(str(file))
    except Exception:  # the loader raises classes of its own, of protobuf and of the file system
        raise NetworkRefused(f"the weights of '{file.name}' cannot be read; export it again") from None


def input_steps(
    image: TensorSpec, layout: str, channels: str
) -> list[tuple[str, Array | None, dict[str, Any]]]:
    """What turns FP32 [N, 3, H, W], RGB, into what ``image`` takes: operations, each with a constant as its
    second input or None, and its attributes."""
    steps: list[tuple[str, Array | None, dict[str, Any]]] = []
    if channels == "bgr":
        steps.append(("Gather", np.array([2, 1, 0], dtype=np.int32), {"axis": 1}))
    if layout == "nhwc":
        steps.append(("Transpose", None, {"perm": [0, 2, 3, 1]}))
    if image.datatype is DataType.FP16:
        steps.append(("Cast", None, {"to": TensorProto.FLOAT16}))
    elif image.datatype is DataType.UINT8:
        # Levels arrive as floats and are cut off by the cast.
        steps.append(("Add", np.array(0.5, dtype=np.float32), {}))
        steps.append(("Cast", None, {"to": TensorProto.UINT8}))
    return steps


def _input_nodes(ends: Ends, layout: str, channels: str) -> tuple[list[Any], list[Any]]:
    steps, weights = [], []
    for index, (kind, constant, attributes) in enumerate(input_steps(ends.image, layout, channels)):
        names = []
        if constant is not None:
            names = [_free(ends, f"in_constant_{index}")]
            weights.append(numpy_helper.from_array(constant, names[0]))
        steps.append((kind, names, attributes))
    return _chain(ends, "image", ends.image.name, steps, "in"), weights


def _output_nodes(ends: Ends, probabilities: bool) -> tuple[list[Any], list[Any]]:
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights = []
    if len(ends.scores.shape) > 2:
        steps.append(("Flatten", [], {"axis": 1}))
    if ends.scores.datatype is DataType.FP16:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if probabilities:
        least = _free(ends, "least_probability")
        weights.append(numpy_helper.from_array(np.array(_LEAST, dtype=np.float32), least))
        steps += [("Max", [least], {}), ("Log", [], {})]
    return _chain(ends, ends.scores.name, "logits", steps, "out"), weights


def _chain(
    ends: Ends, first: str, last: str, steps: list[tuple[str, list[str], dict[str, Any]]], mark: str
) -> list[Any]:
    """Nodes one after the other; the end that is new gets a name that is free."""
    if mark == "in":
        first = _free(ends, first)
    else:
        last = _free(ends, last)
    names = [first, *(_free(ends, f"{mark}_{index}") for index in range(1, len(steps))), last]
    return (
        [
            helper.make_node(kind, [source, *more], [target], **attributes)
            for (kind, more, attributes), source, target in zip(steps, names[:-1], names[1:], strict=True)
        ]
        if steps
        else []
    )


def _free(ends: Ends, name: str) -> str:
    """The name, with underscores until nothing in the graph is called so."""
    graph = ends.model.graph
    taken = {each for node in graph.node for each in (*node.input, *node.output)}
    taken |= {each.name for each in (*graph.input, *graph.output, *graph.initializer)}
    while name in taken:
        name += "_"
    return name


def _value(name: str, rank: int) -> Any:
    axes = ("batch", 3, "height", "width") if rank == 4 else ("batch", "classes")
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))


def _opset(model: Any) -> int:
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
