"""One network of Gharbi et al., from a packed mosaic to an image alone; told the noise level or not.

"Deep Joint Demosaicking and Denoising", M. Gharbi, G. Chaurasia, S. Paris, F. Durand, SIGGRAPH Asia 2016: a
chain of 3x3 convolutions at half resolution, features that multiply, and one layer at full resolution that
sees the mosaic again. The network that is told the level takes it as a fifth plane and multiplies features
once more at its beginning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, DEPTH = 64, 15


class ImageChain(nn.Module):
    """Packed RGGB mosaic (N, 4, h, w) and, if `told`, the noise level (N, 1, h, w) on the same scale ->
    image (N, 3, 2h, 2w)."""

    scatter_kernels: Tensor

    def __init__(self, *, told: bool, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.told = told
        self.depth = depth
        self.mix = nn.Conv2d(4, 4, 1)
        self.first = nn.Conv2d(5 if told else 4, 2 * width if told else width, 3, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, 2 * width if index == depth - 2 else width, 3, padding=1)
            for index in range(depth - 1)
        )
        self.to_image = nn.Conv2d(width, 12, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(6, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, 3, 1)
        )
        self.register_buffer("scatter_kernels", scatter_kernels(), persistent=False)

    def forward(self, packed: Tensor, level: Tensor) -> Tensor:
        x = self.mix(packed)
        if self.told:
            x = _halves_multiplied(torch.relu(self.first(torch.cat([x, level], dim=1))))
        else:
            x = torch.relu(self.first(x))
        for conv in self.convs:
            x = torch.relu(conv(x))
        image = F.pixel_shuffle(self.to_image(_halves_multiplied(x)), 2)
        readings = F.pixel_shuffle(F.conv2d(packed, self.scatter_kernels), 2)
        refined: Tensor = self.refine(torch.cat([readings, image], dim=1))
        return refined


def scatter_kernels() -> Tensor:
    """1x1 kernels (12, 4, 1, 1) that, followed by pixel shuffle, put each reading at its own colour and
    place and zero elsewhere."""
    kernels = torch.zeros(12, 4, 1, 1)
    for place, plane in ((0, 0), (5, 1), (6, 2), (11, 3)):
        kernels[place, plane] = 1.0
    return kernels


def _halves_multiplied(x: Tensor) -> Tensor:
    values, gates = x.chunk(2, dim=1)
    return values * gates
