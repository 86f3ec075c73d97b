"""Any classification network of a repository as a teacher: its ONNX graph, asked for the maps in its middle.

A map can end a block where every path from the image to the answer runs through it. Of those with a stride of
4, 8 and 16 the last ones are taken, as the students are cut (our design; the paper's cuts are not public),
but none that only widens the map before, as inverted residuals do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import torch
from onnx import shape_inference
from torch import Tensor

from nonet.research.fasternet.onnx_session import open_session
from nonet.runtime.errors import InvalidArgument

__all__ = ["Cut", "GraphTeacher", "cuts_of"]

#: A map this many times as wide as the one before it is an expansion, the first layer of the next block.
_EXPANSION: Final = 3
#: Strides at which teacher and student are cut.
STRIDES: Final = (4, 8, 16)


@dataclass(frozen=True)
class Cut:
    """A map that ends a block: its name in the graph, its stride, its channels."""

    name: str
    stride: int
    channels: int


def cuts_of(model: onnx.ModelProto, size: int) -> list[Cut]:
    """Where a network for images [N, 3, size, size] can be cut, by growing stride; empty if nowhere.

    Only maps [N, C, H, W] count, whose height and width are the image's divided by a stride.
    """
    graph = model.graph
    shapes = _shapes(model, size)
    consumers = Counter(name for node in graph.node for name in set(node.input))
    live: set[str] = {graph.input[0].name}
    found: dict[int, list[Cut]] = {}
    for node in graph.node:
        inside = {name for name in node.input if name in live}
        if not inside:
            continue  # made of weights alone
        for name in inside:
            consumers[name] -= 1
        live = {name for name in live if consumers[name] > 0} | {
            name for name in node.output if consumers[name] > 0
        }
        if len(live) != 1:
            continue
        name = next(iter(live))
        shape = shapes.get(name, ())
        if len(shape) == 4 and shape[2] == shape[3] and shape[1] > 0 and shape[2] > 0:
            stride = round(size / shape[2])
            if stride in STRIDES and shape[2] == -(-size // stride):
                found.setdefault(stride, []).append(Cut(name, stride, shape[1]))
    return [_last(found[stride]) for stride in STRIDES if stride in found]


class GraphTeacher:
    """A published classifier that gives the maps at its cuts and its logits.

    Args:
        graph: content of `model.onnx`; one input [N, 3, size, size], one output [N, classes].
        size: side of the images.
        mean, std: of its preprocessing, per channel.
        threads: that it may use.

    Raises InvalidArgument for a graph without a cut.
    """

    def __init__(
        self, graph: bytes, size: int, mean: Sequence[float], std: Sequence[float], threads: int = 1
    ) -> None:
        model = onnx.load_from_string(graph)
        self.cuts = cuts_of(model, size)
        if not self.cuts:
            raise InvalidArgument(
                "this teacher cannot be cut into blocks: no map of stride 4, 8 or 16 lies on every path from "
                "its image to its answer",
                param="teacher",
            )
        self.size = size
        self._input, self._logits = model.graph.input[0].name, model.graph.output[0].name
        known = {value.name for value in model.graph.output}
        for cut in self.cuts:
            if cut.name not in known:
                model.graph.output.append(
                    onnx.helper.make_tensor_value_info(cut.name, onnx.TensorProto.FLOAT, None)
                )
        self._session = open_session(model.SerializeToString(), threads)
        self._mean = torch.tensor(tuple(mean))[:, None, None]
        self._std = torch.tensor(tuple(std))[:, None, None]

    def __len__(self) -> int:
        return len(self.cuts) + 1

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Of images [N, 3, size, size] in 0..1: the images, the map at each cut, the logits [N, classes]."""
        normalised = ((images - self._mean) / self._std).numpy().astype(np.float32)
        names = [*(cut.name for cut in self.cuts), self._logits]
        given = self._session.run(names, {self._input: normalised})
        return [images, *(torch.from_numpy(np.array(each, dtype=np.float32)) for each in given)]


def _last(maps: list[Cut]) -> Cut:
    """The last of a stride's maps before those that only widen it."""
    widest = maps[-1].channels
    for each in reversed(maps):
        if each.channels != widest:
            return each if _EXPANSION * each.channels <= widest else maps[-1]
    return maps[-1]


def _shapes(model: onnx.ModelProto, size: int) -> dict[str, tuple[int, ...]]:
    """Shapes by name for two images; -1 where a side is not known."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    sides = fixed.graph.input[0].type.tensor_type.shape.dim
    for side, value in zip(sides, (2, 3, size, size), strict=True):
        side.dim_value = value
    for output in (*fixed.graph.output, *fixed.graph.value_info):
        for side in output.type.tensor_type.shape.dim:
            if side.dim_param:
                side.Clear()
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    return {
        value.name: tuple(side.dim_value or -1 for side in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
