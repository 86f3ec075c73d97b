"""Random views of aligned faces for training: mirrored, moved a little, relit, blurred, grey, partly
covered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class FaceViews:
    """How far a view may differ from its picture.

    `shift`: of the side, each way; `turn`: degrees; `scale`: factor, up or down; `light`: of brightness and
    contrast; `slope`: of a change of light across the picture; `tint`: of each colour; `grey`, `blur`,
    `cover`: share of the views that are grey, blurred, or have a covered rectangle.
    """

    shift: float = 0.05
    turn: float = 8.0
    scale: float = 0.10
    light: float = 0.35
    slope: float = 0.5
    tint: float = 0.12
    grey: float = 0.35
    blur: float = 0.3
    cover: float = 0.3
    noise: float = 0.02


def random_views(faces: Tensor, size: int, policy: FaceViews, generator: torch.Generator) -> Tensor:
    """Views (N, 3, size, size) in -1..1 of faces (N, 3, S, S) uint8."""
    views = _moved(faces.float() / 255, size, policy, generator)
    views = _relit(views, policy, generator)
    views = _blurred(views, policy, generator)
    count = len(views)
    grey = _uniform(generator, count) < policy.grey
    luma = (views * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    views = torch.where(grey.view(-1, 1, 1, 1), luma, views)
    views = views + policy.noise * torch.randn(views.shape, generator=generator)
    return _covered(views, policy, generator).clamp(0, 1) * 2 - 1


def whole_faces(faces: Tensor, size: int) -> Tensor:
    """Faces (N, 3, S, S) uint8 scaled to (N, 3, size, size) uint8, as the server scales them."""
    if faces.shape[-1] == size:
        return faces
    scaled = F.interpolate(faces.float(), (size, size), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)


def _both_ways(generator: torch.Generator, reach: float, *shape: int) -> Tensor:
    """Uniform in -reach..reach."""
    return (2 * _uniform(generator, *shape) - 1) * reach


def _moved(faces: Tensor, size: int, policy: FaceViews, generator: torch.Generator) -> Tensor:
    count = len(faces)
    angle = _both_ways(generator, math.radians(policy.turn), count)
    scale = torch.exp(_both_ways(generator, math.log1p(policy.scale), count))
    mirror = torch.where(_uniform(generator, count) < 0.5, -1.0, 1.0)
    shift = _both_ways(generator, 2 * policy.shift, count, 2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = (
        torch.stack([mirror * cos, -sin, shift[:, 0]], 1),
        torch.stack([mirror * sin, cos, shift[:, 1]], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="zeros", align_corners=False)


def _relit(views: Tensor, policy: FaceViews, generator: torch.Generator) -> Tensor:
    count, _, side, _ = views.shape
    gain = torch.exp(_both_ways(generator, policy.light, count, 1, 1, 1))
    tint = torch.exp(_both_ways(generator, policy.tint, count, 3, 1, 1))
    gamma = torch.exp(_both_ways(generator, policy.light, count, 1, 1, 1))
    across = torch.linspace(-1, 1, side)
    direction = _both_ways(generator, math.pi, count, 1, 1, 1)
    plane = torch.cos(direction) * across.view(1, 1, 1, -1) + torch.sin(direction) * across.view(1, 1, -1, 1)
    slope = torch.exp(_uniform(generator, count, 1, 1, 1) * policy.slope * plane)
    return (views.clamp(min=1e-4) ** gamma * gain * tint * slope).clamp(0, 1)


def _blurred(views: Tensor, policy: FaceViews, generator: torch.Generator) -> Tensor:
    """Some of them scaled down and up again, as small faces are."""
    chosen = _uniform(generator, len(views)) < policy.blur
    side = views.shape[-1]
    small = int(side * (0.25 + 0.5 * float(_uniform(generator, 1))))
    down = F.interpolate(views, (small, small), mode="bilinear", antialias=True, align_corners=False)
    blurred = F.interpolate(down, (side, side), mode="bilinear", align_corners=False)
    return torch.where(chosen.view(-1, 1, 1, 1), blurred, views)


def _covered(views: Tensor, policy: FaceViews, generator: torch.Generator) -> Tensor:
    """A rectangle of one grey over some of them."""
    count, _, side, _ = views.shape
    place = torch.arange(side)
    size = (0.15 + 0.25 * _uniform(generator, count, 2)) * side
    start = _uniform(generator, count, 2) * (side - size)
    rows = (place >= start[:, :1]) & (place < (start + size)[:, :1])
    columns = (place >= start[:, 1:]) & (place < (start + size)[:, 1:])
    chosen = (_uniform(generator, count) < policy.cover).view(-1, 1, 1)
    hidden = (rows[:, :, None] & columns[:, None, :] & chosen)[:, None]
    return torch.where(hidden, _uniform(generator, count, 1, 1, 1), views)
