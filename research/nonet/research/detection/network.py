"""The detector: a feature pyramid, a light path-aggregation neck of FasterNet blocks, and a decoupled head
that gives each place of the maps a box and a score for each class, without anchors.

The boxes are distances from a place to the four sides, as in FCOS (Z. Tian et al., ICCV 2019, arXiv
1904.01355); neck as in PANet (S. Liu et al., CVPR 2018, arXiv 1803.01534); blocks of FasterNet (CVPR 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.detection.backbones import BackboneName, build_pyramid
from nonet.research.fasternet.network import Block, Variant

STRIDES = (8, 16, 32)
#: Score that the head of a fresh network gives everything, so that the many empty places do not swamp it.
PRIOR = 0.01
#: Largest exponent of a distance: e^6 strides are more than any input has.
LARGEST = 6.0


@dataclass(frozen=True)
class Shape:
    """Shape of a detector: backbone, number of classes, side of the square input, width of neck and head."""

    backbone: BackboneName
    classes: int
    side: int
    width: int = 96

    def __post_init__(self) -> None:
        if self.side % STRIDES[-1] or self.side < STRIDES[-1]:
            raise ValueError(f"the side must be a multiple of {STRIDES[-1]}")
        if self.classes < 1 or self.width % 4:
            raise ValueError("at least one class, and a width that is a multiple of 4")


def _project(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class Neck(nn.Module):
    """Three maps of a pyramid -> three maps of `width` channels, mixed from coarse to fine and back."""

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        shape = Variant(width, (1,), "relu", 0.0)
        self.lateral = nn.ModuleList(_project(inside, width) for inside in widths)
        self.down_merge = nn.ModuleList(_project(2 * width, width) for _ in range(2))
        self.down_block = nn.ModuleList(Block(width, shape, 0.0, "split_cat", "input") for _ in range(2))
        self.shrink = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 2, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            )
            for _ in range(2)
        )
        self.up_merge = nn.ModuleList(_project(2 * width, width) for _ in range(2))
        self.up_block = nn.ModuleList(Block(width, shape, 0.0, "split_cat", "input") for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (lateral(each) for lateral, each in zip(self.lateral, maps, strict=True))
        middle = self._mix(self.down_merge[0], self.down_block[0], middle, _double(coarse))
        fine = self._mix(self.down_merge[1], self.down_block[1], fine, _double(middle))
        middle = self._mix(self.up_merge[0], self.up_block[0], middle, self.shrink[0](fine))
        coarse = self._mix(self.up_merge[1], self.up_block[1], coarse, self.shrink[1](middle))
        return [fine, middle, coarse]

    @staticmethod
    def _mix(merge: nn.Module, block: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        return block(merge(torch.cat((first, second), dim=1)))


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Head(nn.Module):
    """One level's map (B, width, h, w) -> class logits (B, classes, h, w) and distances (B, 4, h, w)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        shape = Variant(width, (1,), "relu", 0.0)
        self.class_block = Block(width, shape, 0.0, "split_cat", "input")
        self.box_block = Block(width, shape, 0.0, "split_cat", "input")
        self.class_out = nn.Conv2d(width, classes, 1)
        self.box_out = nn.Conv2d(width, 4, 1)
        for layer, bias in (
            (self.class_out, -math.log((1 - PRIOR) / PRIOR)),
            (self.box_out, 0.7),  # about two strides to each side
        ):
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.class_out(self.class_block(x)), self.box_out(self.box_block(x))


class Top(nn.Module):
    """Neck and heads: forward(maps at strides 8, 16, 32) -> logits (B, A, classes) and boxes (B, A, 4) in
    pixels of the input, A places from the finest map to the coarsest, rows first.
    """

    centres: Tensor
    strides: Tensor

    def __init__(self, shape: Shape, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.neck = Neck(widths, shape.width)
        self.heads = nn.ModuleList(Head(shape.width, shape.classes) for _ in STRIDES)
        centres, strides = places(shape.side)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        logits, distances = [], []
        for head, x in zip(self.heads, self.neck(maps), strict=True):
            scores, sides = head(x)
            logits.append(scores.flatten(2))
            distances.append(sides.flatten(2))
        sides = torch.cat(distances, 2).transpose(1, 2).float()
        sides = sides.clamp(max=LARGEST).exp() * self.strides[:, None]
        boxes = torch.cat((self.centres - sides[..., :2], self.centres + sides[..., 2:]), dim=-1)
        return torch.cat(logits, 2).transpose(1, 2).float(), boxes


class Detector(nn.Module):
    """forward(images (B, 3, side, side) in [0, 1]) -> as :class:`Top`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.pyramid = build_pyramid(shape.backbone)
        self.top = Top(shape, self.pyramid.widths)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.top(self.pyramid(images))


def places(side: int) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) and strides (A,) of the places of a square input, in pixels."""
    centres, strides = [], []
    for stride in STRIDES:
        count = side // stride
        line = (torch.arange(count, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack((x, y), dim=-1).reshape(-1, 2))
        strides.append(torch.full((count * count,), float(stride)))
    return torch.cat(centres), torch.cat(strides)
