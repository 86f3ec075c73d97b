"""A linear map per Bayer phase from a window of the mosaic to RGB, fitted by least squares for one noise
level.

The simplest joint demosaicking and denoising that learns anything, and a bar every network must clear. The
noise enters as its variance on the diagonal of the normal equations, so one pass over clean windows serves
every level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nonet.research.wild_jdd.bayer import mosaic

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Moments:
    """Sums over clean windows per phase: `gram` (4, D+1, D+1), `cross` (4, D+1, 3), `count` windows; D =
    side^2."""

    side: int
    gram: Tensor
    cross: Tensor
    count: Tensor


def collect_moments(
    pictures: Sequence[np.ndarray], *, side: int = 9, windows: int = 2500, seed: int = 0
) -> Moments:
    """Second moments of mosaic windows and their centre colours, `windows` per picture and phase."""
    size = side * side + 1
    gram, cross = (
        torch.zeros(4, size, size, dtype=torch.float64),
        torch.zeros(4, size, 3, dtype=torch.float64),
    )
    count = torch.zeros(4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    radius = side // 2
    for picture in pictures:
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].double() / 255
        height, width = image.shape[-2] // 2 * 2, image.shape[-1] // 2 * 2
        image = image[..., :height, :width]
        plane = F.pad(mosaic(image), (radius,) * 4, mode="reflect")[0, 0]
        patches = plane.unfold(0, side, 1).unfold(1, side, 1)  # (H, W, side, side)
        for index, (row, column) in enumerate(PHASES):
            rows, columns = (height - row + 1) // 2, (width - column + 1) // 2
            chosen = torch.randint(rows * columns, (windows,), generator=generator)
            y, x = row + 2 * (chosen // columns), column + 2 * (chosen % columns)
            inputs = torch.cat(
                [patches[y, x].reshape(windows, -1), torch.ones(windows, 1, dtype=torch.float64)], 1
            )
            targets = image[0][:, y, x].T
            gram[index] += inputs.T @ inputs
            cross[index] += inputs.T @ targets
            count[index] += windows
    return Moments(side, gram, cross, count)


def fit(moments: Moments, sigma: float) -> Tensor:
    """Convolution weights of the four phases for noise `sigma` on the 0-255 scale: (4, 3, side^2 + 1)."""
    noise = (sigma / 255) ** 2
    ridge = torch.full((moments.gram.shape[-1],), noise + 1e-7, dtype=torch.float64)
    ridge[-1] = 0.0
    solutions = []
    for gram, cross, count in zip(moments.gram, moments.cross, moments.count, strict=True):
        solutions.append(torch.linalg.solve(gram / count + torch.diag(ridge), cross / count).T)
    return torch.stack(solutions)


def apply(weights: Tensor, readings: Tensor) -> Tensor:
    """RGB (N, 3, H, W) of RGGB mosaics (N, 1, H, W) under `fit`'s weights."""
    side = round((weights.shape[-1] - 1) ** 0.5)
    radius = side // 2
    padded = F.pad(readings.double(), (radius,) * 4, mode="reflect")
    out = readings.new_zeros(len(readings), 3, *readings.shape[-2:])
    for index, (row, column) in enumerate(PHASES):
        kernel = weights[index, :, :-1].reshape(3, 1, side, side)
        full = F.conv2d(padded[..., row:, column:], kernel, weights[index, :, -1], stride=2)
        target = out[..., row::2, column::2]
        target.copy_(full[..., : target.shape[-2], : target.shape[-1]])
    return out
