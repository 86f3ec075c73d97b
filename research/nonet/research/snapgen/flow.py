"""Rectified flow: the straight path between a picture and noise, its velocity, and the times along it.

Time runs from 0, the picture, to 1, noise. Times are tensors (B,) that broadcast over the values of a sample.

Source: arXiv 2412.09619, its section on training (as restated in arXiv 2601.08303); the shift of times with
the resolution is that of arXiv 2403.03206.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def per_sample(time: Tensor, like: Tensor) -> Tensor:
    """Times (B,) shaped (B, 1, ...) so that they multiply samples such as `like` (B, ...)."""
    return time.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def at(picture: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The point of the path at `time` (B,): (1 - t) picture + t noise, both (B, ...)."""
    t = per_sample(time, picture)
    return (1 - t) * picture + t * noise


def velocity(picture: Tensor, noise: Tensor) -> Tensor:
    """What a network learns to predict: the derivative of the path by time, the same all along it."""
    return noise - picture


def picture_of(point: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
    """The end at time 0 of the straight line through `point` (B, ...) at `time` (B,): x_t - t v."""
    return point - per_sample(time, point) * velocity


def noise_of(point: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
    """The end at time 1 of that line: x_t + (1 - t) v."""
    return point + (1 - per_sample(time, point)) * velocity


def logit_normal_times(
    count: int,
    mean: float = 0.0,
    deviation: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Times (count,) for training, sigmoid of a normal variable: most in the middle, few at the ends."""
    normal = torch.randn(count, generator=generator, device=device)
    return torch.sigmoid(mean + deviation * normal)


def shifted(time: Tensor, shift: float) -> Tensor:
    """Times moved towards noise: s t / (1 + (s - 1) t), which adds ln s to their logits. 1 leaves them.

    Raises ValueError for a shift that is not positive and finite.
    """
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"the shift of times must be positive, not {shift}")
    return shift * time / (1 + (shift - 1) * time)


def resolution_shift(cells: int, reference_cells: int) -> float:
    """The shift that gives `cells` latent cells the noise that `reference_cells` were trained with: the root
    of their ratio.
    """
    return math.sqrt(cells / reference_cells)


def schedule(steps: int, shift: float = 1.0) -> Tensor:
    """Times (steps + 1,) from 1 to 0 between which a sampler steps, in float64.

    Raises ValueError for no step.
    """
    if steps < 1:
        raise ValueError(f"sampling takes one step at least, not {steps}")
    return shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift)
