"""Grouped residual dense blocks, the body of the paper's network.

GRDN (arXiv 1905.11172) nests residual dense blocks (arXiv 1802.08797): a dense block feeds every layer all
earlier features, a 1x1 convolution fuses them, a skip closes it; a group fuses the outputs of several such
blocks. Depth and width of Wild-JDD itself are not public; they are configuration here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualDenseBlock(nn.Module):
    """`layers` 3x3 convolutions of `growth` features, densely connected, fused by 1x1, plus skip. (N, C, H,
    W) kept."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width + index * growth, growth, 3, padding=1) for index in range(layers)
        )
        self.fuse = nn.Conv2d(width + layers * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for conv in self.convs:
            features.append(torch.relu(conv(torch.cat(features, dim=1))))
        return x + self.fuse(torch.cat(features, dim=1))


class GroupedResidualDenseBlock(nn.Module):
    """`blocks` residual dense blocks in a row; their outputs are concatenated, fused by 1x1, plus skip."""

    def __init__(self, width: int, growth: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualDenseBlock(width, growth, layers) for _ in range(blocks))
        self.fuse = nn.Conv2d(width * blocks, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs, current = [], x
        for block in self.blocks:
            current = block(current)
            outputs.append(current)
        return x + self.fuse(torch.cat(outputs, dim=1))


class GroupedDenseBody(nn.Module):
    """U shape: strided convolution, `groups` GRDBs at half the packed resolution, transposed convolution,
    skip.

    Input and output (N, C, h, w) with even h and w.
    """

    def __init__(self, width: int, *, groups: int, blocks: int, layers: int, growth: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.groups = nn.ModuleList(
            GroupedResidualDenseBlock(width, growth, layers, blocks) for _ in range(groups)
        )
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = current = self.down(x)
        for group in self.groups:
            current = group(current)
        return x + self.up(current + inner)
