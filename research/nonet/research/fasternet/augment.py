"""Random views of a batch, drawn from one generator so that a run can be repeated and resumed exactly.

Pictures may lie on any device; the generator must be of the same one.

Crop, flip and small rotation are one bilinear sampling of the batch; colour is one affine map of the RGB
values; mixing is mixup (H. Zhang et al., ICLR 2018) or CutMix (S. Yun et al., ICCV 2019), the same pairs for
images and labels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@functools.cache
def _luma(device: torch.device) -> Tensor:
    """Weights of red, green and blue (3, 1, 1); kept, since each copy to a GPU makes the host wait for it."""
    return torch.tensor([0.299, 0.587, 0.114], device=device)[:, None, None]


@dataclass(frozen=True)
class ViewPolicy:
    """How far a random view may stray from the picture."""

    min_area: float = 0.25  # smallest share of the picture that a crop keeps
    max_aspect: float = 4 / 3
    rotation: float = 10.0  # degrees, both ways
    colour: float = 0.3  # brightness, contrast and saturation are scaled by 1 +- colour
    mix_probability: float = 0.5
    mixup_alpha: float = 0.4
    cutmix_alpha: float = 1.0


def uniform(generator: torch.Generator, low: float, high: float, size: int) -> Tensor:
    return torch.rand(size, generator=generator, device=generator.device) * (high - low) + low


def beta(generator: torch.Generator, alpha: float) -> float:
    """One draw of Beta(alpha, alpha) by Johnk's method, which needs only uniforms; alpha <= 1."""
    while True:
        u, v = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        a, b = u ** (1 / alpha), v ** (1 / alpha)
        if 0 < a + b <= 1:
            return a / (a + b)


def random_views(pictures: Tensor, size: int, policy: ViewPolicy, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) uint8 -> random crops, flips and colours (B, 3, size, size) float32 in [0, 1]."""
    count = len(pictures)
    area = uniform(generator, policy.min_area, 1.0, count)
    stretch = torch.exp(uniform(generator, -1, 1, count) * (math.log(policy.max_aspect) / 2))
    width = (area.sqrt() * stretch).clamp(max=1.0)  # share of the picture's side
    height = (area.sqrt() / stretch).clamp(max=1.0)
    x = uniform(generator, -1, 1, count) * (1 - width)  # crop centre in [-1, 1] coordinates
    y = uniform(generator, -1, 1, count) * (1 - height)
    flip = torch.where(uniform(generator, 0, 1, count) < 0.5, -1.0, 1.0)
    angle = uniform(generator, -1, 1, count) * math.radians(policy.rotation)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        (
            torch.stack((flip * width * cos, -height * sin, x), dim=1),
            torch.stack((flip * width * sin, height * cos, y), dim=1),
        ),
        dim=1,
    )  # (B, 2, 3)
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    views = functional.grid_sample(
        pictures.float().div_(255), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return jitter_colour(views, policy.colour, generator)


def jitter_colour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale brightness, contrast and saturation of each image by factors in 1 +- strength; clip to 0..1."""
    if strength == 0:
        return images
    count = len(images)
    brightness, contrast, saturation = (
        uniform(generator, 1 - strength, 1 + strength, count)[:, None, None, None] for _ in range(3)
    )
    grey = (images * _luma(images.device)).sum(1, keepdim=True)
    images = torch.lerp(grey.expand_as(images), images, saturation)
    mean = grey.mean((2, 3), keepdim=True)
    return ((images - mean) * contrast + mean).mul_(brightness).clamp_(0, 1)


def mix(
    images: Tensor, targets: Tensor, policy: ViewPolicy, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """With the policy's probability, blend or patch each image with another of the batch.

    images (B, 3, H, W), targets (B, C) soft labels; returns both mixed with the same weights.
    """
    draw, kind = torch.rand(2, generator=generator).tolist()
    if draw >= policy.mix_probability:
        return images, targets
    order = torch.randperm(len(images), generator=generator)
    if kind < 0.5:
        share = beta(generator, policy.mixup_alpha)
        mixed = torch.lerp(images[order], images, share)
    else:
        share = beta(generator, policy.cutmix_alpha)
        height, width = images.shape[2:]
        half_h, half_w = (int(side * math.sqrt(1 - share) / 2) for side in (height, width))
        row = int(torch.randint(height, (), generator=generator))
        column = int(torch.randint(width, (), generator=generator))
        top, bottom = max(0, row - half_h), min(height, row + half_h)
        left, right = max(0, column - half_w), min(width, column + half_w)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets[order], targets, share)


def mix_each(
    images: Tensor, targets: Tensor, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """As `mix`, but every image draws for itself, with uniform shares, and the host reads nothing back.

    images (B, 3, H, W), targets (B, C) soft labels, both on the generator's device. Where a teacher answers
    the mixed view, strong mixing widens the support of few pictures (L. Beyer et al., CVPR 2022).
    """
    count, _, height, width = images.shape
    device = generator.device
    draw, kind, share, row, column = torch.rand(5, count, generator=generator, device=device)
    partner = torch.randperm(count, generator=generator, device=device)
    half = (1 - share).sqrt()[:, None] / 2  # of the patch's side, in shares of the picture
    rows = ((torch.arange(height, device=device) + 0.5) / height - row[:, None]).abs() < half  # (B, H)
    columns = ((torch.arange(width, device=device) + 0.5) / width - column[:, None]).abs() < half
    patched = 1 - (rows[:, :, None] & columns[:, None, :]).float()  # (B, H, W): weight of the image itself
    weight = torch.where((kind < 0.5)[:, None, None], share[:, None, None], patched)
    weight = torch.where((draw < probability)[:, None, None], weight, 1.0)
    mixed = torch.lerp(images[partner], images, weight[:, None])
    return mixed, torch.lerp(targets[partner], targets, weight.mean((1, 2))[:, None])
