"""A small face detector with five landmarks: FasterNet as the backbone, one anchor-free head for three
strides.

The layout (score, box and landmarks for each cell) is that of YuNet, see :mod:`.yunet`, which also teaches
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonet.research.fasternet.network import Backbone, Variant

STRIDES = (8, 16, 32)
#: Numbers of a cell: score, box (4), landmarks (10).
VALUES = 15
_VARIANT = Variant(16, (1, 2, 3, 1), "relu", 0.0)
_PIXELS_MEAN = 127.5
_RARE = -4.0  # bias of the score: at first nearly no cell is a face


@dataclass(frozen=True)
class DetectorConfig:
    """`size`: side of the square input, a multiple of 32; `width`: channels of the head."""

    size: int = 160
    width: int = 32


class FaceDetector(nn.Module):
    """Pictures (N, 3, size, size) with levels 0..255 -> (N, cells, 15), the cells of stride 8, 16, 32 in
    rows.

    Of a cell with its upper left corner at p and stride s: the score as a logit; the box's centre as (c -
    p) / s and its size as log(size / s); each landmark as (l - p) / s.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(_VARIANT, 0.0, "split_cat", "input")
        widths = [_VARIANT.embed_dim * 2**level for level in (1, 2, 3)]
        self.lateral = nn.ModuleList(nn.Conv2d(width, config.width, 1) for width in widths)
        self.towers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(config.width, config.width, 3, padding=1, bias=False),
                nn.BatchNorm2d(config.width),
                nn.ReLU(inplace=True),
            )
            for _ in widths
        )
        self.heads = nn.ModuleList(nn.Conv2d(config.width, VALUES, 1) for _ in widths)
        with torch.no_grad():
            for head in self.heads:
                assert isinstance(head, nn.Conv2d)
                assert head.bias is not None
                head.bias[0] = _RARE

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.backbone.patch_embed(pictures / _PIXELS_MEAN - 1)
        maps = []
        for number, stage in enumerate(self.backbone.stages):
            x = stage(x)
            if number in (2, 4, 6):  # the stages at strides 8, 16 and 32; the layers between them halve
                maps.append(x)
        fine, middle, coarse = (lateral(each) for lateral, each in zip(self.lateral, maps, strict=True))
        middle = middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        fine = fine + F.interpolate(middle, scale_factor=2.0, mode="nearest")
        answers = [
            head(tower(each)).flatten(2)
            for head, tower, each in zip(self.heads, self.towers, (fine, middle, coarse), strict=True)
        ]
        return torch.cat(answers, 2).transpose(1, 2)  # (N, cells, 15)


def cell_corners(size: int) -> tuple[Tensor, Tensor]:
    """Upper left corners (cells, 2) as x, y, and strides (cells,), of an input of that side, in pixels."""
    corners, strides = [], []
    for stride in STRIDES:
        place = torch.arange(size // stride, dtype=torch.float32) * stride
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        corners.append(torch.stack([columns, rows], -1).view(-1, 2))
        strides.append(torch.full((len(place) ** 2,), float(stride)))
    return torch.cat(corners), torch.cat(strides)


def decode(answers: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Answers (N, cells, 15) -> scores (N, cells) 0..1, boxes (N, cells, 4) as corners and landmarks
    (N, cells, 5, 2), in pixels of the input."""
    corners, strides = cell_corners(size)
    spread = strides.view(-1, 1)
    centre = corners + answers[..., 1:3] * spread
    half = torch.exp(answers[..., 3:5].clamp(-4, 4)) * spread / 2
    points = answers[..., 5:].unflatten(-1, (5, 2)) * spread.unsqueeze(-1) + corners.unsqueeze(1)
    return answers[..., 0].sigmoid(), torch.cat([centre - half, centre + half], -1), points
