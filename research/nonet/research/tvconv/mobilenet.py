"""MobileNetV2 for aligned faces, with TVConv or plain depthwise convolutions (TVConv, CVPR 2022, section
4.1).

Blocks after Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nonet.research.tvconv.layer import GeneratorConfig, TVConv, output_size

Stages = tuple[tuple[int, int, int, int], ...]

#: Expansion, channels, blocks and first stride of each stage, as the paper has them.
STAGES: Stages = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
#: Six blocks where the paper has seventeen: for a few hundred pictures and minutes of one core.
SMALL_STAGES: Stages = ((1, 16, 1, 1), (3, 32, 1, 2), (3, 64, 2, 2), (3, 128, 2, 2))
_STEM = 32
_TAIL = 512


@dataclass(frozen=True)
class FaceNetConfig:
    """One network; the defaults are the paper's at width 1.

    `operator`: `tvconv` or `depthwise`, in every inverted residual; `width`: factor of all channels but those
    of the tail; `size`: height and width of the input in pixels; `stem_stride`: 1 in the paper, 2 quarters
    the cost and the kernels; `embedding`: length of the answer; `stages`: as STAGES.
    """

    operator: str = "tvconv"
    width: float = 1.0
    size: int = 96
    stem_stride: int = 1
    embedding: int = 512
    dropout: float = 0.0
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    stages: Stages = STAGES


def channels_of(base: int, width: float) -> int:
    """`base` times `width`, to a multiple of 8, at least 8 and never more than a tenth below."""
    wanted = base * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> list[nn.Module]:
    """A convolution with batch normalisation."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """Widen, convolve every channel by itself, narrow; added to the input where the shape stays."""

    def __init__(
        self,
        config: FaceNetConfig,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        spatial: nn.Module
        if config.operator == "tvconv":
            spatial = TVConv(hidden, size, stride, generator=config.generator)
        elif config.operator == "depthwise":
            spatial = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        else:
            raise ValueError(f"unknown operator '{config.operator}': choose tvconv or depthwise")
        widen = [] if expansion == 1 else [*conv_bn(inputs, hidden), nn.ReLU6(inplace=True)]
        self.body = nn.Sequential(
            *widen, spatial, nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True), *conv_bn(hidden, outputs)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class FaceNet(nn.Module):
    """Faces (N, 3, size, size) in -1..1 -> embeddings (N, embedding), not of unit length."""

    def __init__(self, config: FaceNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = channels_of(_STEM, config.width)
        size = output_size((config.size, config.size), config.stem_stride)
        blocks: list[nn.Module] = [*conv_bn(3, channels, 3, config.stem_stride), nn.ReLU6(inplace=True)]
        for expansion, base, count, first_stride in config.stages:
            outputs = channels_of(base, config.width)
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(InvertedResidual(config, channels, outputs, expansion, stride, size))
                channels, size = outputs, output_size(size, stride)
        blocks += [*conv_bn(channels, _TAIL), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(_TAIL)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(_TAIL, config.embedding)
        self.last_norm = nn.BatchNorm1d(config.embedding)
        initialise(self)

    def forward(self, faces: Tensor) -> Tensor:
        pooled = self.norm(self.features(faces)).mean((2, 3))  # (N, 512)
        embedding: Tensor = self.last_norm(self.linear(self.dropout(pooled)))
        return embedding

    def tvconvs(self) -> list[TVConv]:
        """The position-dependent convolutions, in their order."""
        return [module for module in self.modules() if isinstance(module, TVConv)]


def freeze(network: nn.Module) -> nn.Module:
    """Make the kernels of every TVConv of a network once; returns the network in eval mode."""
    network.eval()
    for module in network.modules():
        if isinstance(module, TVConv):
            module.freeze()
    return network


def deployed(network: nn.Module, *, half: bool = False) -> nn.Module:
    """Put kernels in the place of every generator of `network`, which is changed and returned in eval
    mode."""
    for name, child in network.named_children():
        if isinstance(child, TVConv):
            setattr(network, name, child.deployed(half=half))
        else:
            deployed(child, half=half)
    return network.eval()


def initialise(network: nn.Module) -> None:
    """Convolutions, the generators' too: Kaiming normal by fan-out; norms 1 and 0; linear layers 0.01."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def embed(network: nn.Module, faces: Tensor, batch: int = 64) -> Tensor:
    """Embeddings of unit length (N, D) of faces (N, 3, S, S) uint8, in eval mode."""
    network.eval()
    parts = [network(normalised(faces[start : start + batch])) for start in range(0, len(faces), batch)]
    return nn.functional.normalize(torch.cat(parts))


def normalised(faces: Tensor) -> Tensor:
    """uint8 -> FP32 in -1..1, as (x / 255 - 0.5) / 0.5."""
    return faces.float() / 127.5 - 1
