"""EfficientNet-Lite in PyTorch, with the tensor names of the published files: what the graph must equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# (repeats, kernel, stride, expansion, width); first and last stage are not deepened.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}
"""Trainable parameters as published: 4.7, 5.4 and 6.1 million."""


class Same(nn.Conv2d):
    """Convolution with "same" padding: output side = ceil(side / stride), odd pixel at the end."""

    def forward(self, value: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (value.shape[3], value.shape[2]):
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(value, pads))


def norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv, self._bn0 = Same(inputs, inner, 1, bias=False), norm(inner)
        self._depthwise_conv = Same(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = norm(inner)
        self._project_conv, self._bn2 = Same(inner, outputs, 1, bias=False), norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, value: Tensor) -> Tensor:
        start = value
        if self.expands:
            value = functional.relu6(self._bn0(self._expand_conv(value)))
        value = functional.relu6(self._bn1(self._depthwise_conv(value)))
        value = self._bn2(self._project_conv(value))
        return value + start if self.residual else value


class Lite(nn.Module):
    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), norm(32)
        blocks, inputs = [], 32
        for index, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            outputs = int(channels * width + 4) // 8 * 8
            outputs += 8 if outputs < 0.9 * channels * width else 0
            for repeat in range(repeats if index in (0, 6) else math.ceil(repeats * depth)):
                blocks.append(Block(kernel, stride if repeat == 0 else 1, expansion, inputs, outputs))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Same(inputs, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, value: Tensor) -> Tensor:
        value = functional.relu6(self._bn0(self._conv_stem(value)))
        for block in self._blocks:
            value = block(value)
        value = functional.relu6(self._bn1(self._conv_head(value)))
        logits: Tensor = self._fc(value.mean(dim=(2, 3)))
        return logits


def random_lite(width: float, depth: float) -> Lite:
    """In inference mode, with weights and statistics that keep the activations in ReLU6's range."""
    torch.manual_seed(7)
    network = Lite(width, depth).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, -0.2, 0.6)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.05, 0.5)
    return network
