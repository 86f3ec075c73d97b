"""Noise models for mosaics with values in [0, 1]. Levels are standard deviations on that scale.

spatially varying Gaussian   VDNet's generator (arXiv 1908.11314): a Gaussian bump between two levels
constant Gaussian            one level per patch; a level of zero keeps the patch clean
Poisson-Gaussian             variance a*z + b, the usual model of a linear sensor
correlated Gaussian          neighbouring readings share noise: never trained on, used to test adaptation
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class NoiseRange:
    """What training draws from.

    Attributes:
        low, high: range of levels on the 0-255 scale.
        clean: share of patches without noise.
        varying: share of the noisy patches whose level varies over the patch.
        signal_dependent: share of the noisy patches with variance a*z + b.
        bend: power of the uniform number that a level is drawn with; above 1 low levels come more often.
    """

    low: float = 0.0
    high: float = 25.0
    clean: float = 0.2
    varying: float = 0.3
    signal_dependent: float = 0.15
    bend: float = 1.0

    def __post_init__(self) -> None:
        if not self.bend > 0:
            raise ValueError(f"bend must be positive, got {self.bend}")
        if not 0 <= self.low <= self.high:
            raise ValueError(f"noise range needs 0 <= low <= high, got {self.low}..{self.high}")
        for name in ("clean", "varying", "signal_dependent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share and must lie in [0, 1]")
        if self.varying + self.signal_dependent > 1:
            raise ValueError("varying and signal_dependent together exceed 1")


def gaussian_bump_map(
    size: int, generator: Generator, *, low: float, high: float, raise_upper: float = 5 / 255
) -> Tensor:
    """One spatially varying level map (size, size) with values in [lower, upper] (VDNet's generator).

    Two levels are drawn from [low, high] and ordered, the upper raised by `raise_upper`. The bump's centre
    is uniform in the patch, its scale uniform in [size/4, 3*size/4].
    """
    u = torch.rand(5, generator=generator)
    first, second = low + (high - low) * u[0], low + (high - low) * u[1]
    lower, upper = torch.minimum(first, second), torch.maximum(first, second) + raise_upper
    scale = size / 4 + u[4] * size / 2
    y = torch.arange(size, dtype=torch.float32) - u[2] * size
    x = torch.arange(size, dtype=torch.float32) - u[3] * size
    bump = torch.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * scale**2))
    spread = bump.max() - bump.min()
    return lower + (bump - bump.min()) / spread * (upper - lower)


def poisson_gaussian_level(signal: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
    """Standard deviation sqrt(a*z + b) of a linear sensor at clean values `signal` (same shape)."""
    return torch.sqrt(torch.clamp(a * signal.clamp_min(0) + b, min=0.0))


def draw_levels(clean: Tensor, noise: NoiseRange, generator: Generator) -> Tensor:
    """True level map for a batch of clean RGB patches (N, 3, P, P): the map (N, 3, P, P).

    Gaussian maps are the same for the three channels; signal-dependent ones follow each channel's own values.
    """
    count, _, size, _ = clean.shape
    levels = torch.zeros_like(clean)
    draws = torch.rand(count, 3, generator=generator)
    low, high = noise.low / 255, noise.high / 255
    for index in range(count):
        if draws[index, 0] < noise.clean:
            continue
        kind = float(draws[index, 1])
        level = low + (high - low) * float(draws[index, 2]) ** noise.bend
        if kind < noise.varying:
            raised = min(5 / 255, high - low)
            levels[index] = gaussian_bump_map(
                size, generator, low=low, high=high - raised, raise_upper=raised
            )
        elif kind < noise.varying + noise.signal_dependent:
            # `level` is reached at mid-grey; between none and all of the variance comes from the signal.
            share = float(torch.rand(1, generator=generator))
            a, b = share * level**2 / 0.5, (1 - share) * level**2
            levels[index] = poisson_gaussian_level(clean[index], a, b)
        else:
            levels[index] = level
    return levels


def add_gaussian(values: Tensor, level: Tensor | float, generator: Generator) -> Tensor:
    """`values` plus independent Gaussian noise of standard deviation `level` (broadcast). Not clipped."""
    return values + torch.randn(values.shape, generator=generator) * level


def add_correlated(values: Tensor, level: float, generator: Generator, *, radius: int = 1) -> Tensor:
    """`values` (N, 1, H, W) plus Gaussian noise smoothed over same-colour neighbours, of marginal deviation
    `level`."""
    planes = F.pixel_unshuffle(torch.randn(values.shape, generator=generator), 2)
    side = 2 * radius + 1
    kernel = torch.full(
        (4, 1, side, side), 1.0 / side
    )  # unit energy: the variance stays 1 away from the border
    smooth = F.conv2d(F.pad(planes, (radius,) * 4, mode="circular"), kernel, groups=4)
    return values + level * F.pixel_shuffle(smooth, 2)
