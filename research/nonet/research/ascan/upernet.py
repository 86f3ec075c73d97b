"""UperNet: masks from the maps of four stages, by pyramid pooling and a top-down pathway.

Source: T. Xiao, Y. Liu, B. Zhou, Y. Jiang, J. Sun, "Unified Perceptual Parsing for Scene Understanding", ECCV
2018, as AsCAN's segmentation uses it: pooling of the last stage, lateral 1x1 convolutions, sums from the top
down, a 3x3 convolution at each level, and one over all of them. A narrow width makes it a light head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonet.research.ascan.network import Pyramid, Variant, initialise


@dataclass(frozen=True)
class Head:
    """Shape of a UperNet head: its width, and the sides of the grids that the last stage is pooled to."""

    width: int = 512
    pooled: tuple[int, ...] = (1, 2, 3, 6)


class ConvNormAct(nn.Module):
    """Convolution of odd size that keeps height and width, batch normalisation, ReLU."""

    def __init__(self, width_in: int, width: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, size, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of another map."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class UperNet(nn.Module):
    """AsCAN's pyramid and the head: (B, 3, H, W) -> logits (B, classes, H/4, W/4)."""

    def __init__(self, variant: Variant, head: Head, classes: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(variant)
        *lower, last = variant.widths
        width = head.width
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvNormAct(last, width, 1)) for side in head.pooled
        )
        self.bottleneck = ConvNormAct(last + width * len(head.pooled), width, 3)
        self.laterals = nn.ModuleList(ConvNormAct(each, width, 1) for each in lower)
        self.fuses = nn.ModuleList(ConvNormAct(width, width, 3) for _ in lower)
        self.all_levels = ConvNormAct(width * len(variant.widths), width, 3)
        self.classify = nn.Conv2d(width, classes, 1)
        for part in (self.pools, self.bottleneck, self.laterals, self.fuses, self.all_levels, self.classify):
            initialise(part)

    def forward(self, x: Tensor) -> Tensor:
        return self.masks(self.pyramid(x))

    def masks(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps of the four stages -> logits at the size of the first."""
        *lower, last = maps
        pooled = [enlarged(pool(last), last) for pool in self.pools]
        levels = [self.bottleneck(torch.cat([last, *pooled], 1))]
        for lateral, below in zip(reversed(self.laterals), reversed(lower), strict=True):
            levels.append(lateral(below) + enlarged(levels[-1], below))
        top, *rest = levels
        fused = [top, *(fuse(level) for fuse, level in zip(reversed(self.fuses), rest, strict=True))]
        logits: Tensor = self.classify(
            self.all_levels(torch.cat([enlarged(each, fused[-1]) for each in fused], 1))
        )
        return logits
