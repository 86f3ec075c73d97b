"""Adversarial distillation to few steps: the student's guess, noised again, must pass for a noised picture.

The discriminator is a frozen teacher with small trained heads on its features; the student also keeps the
losses of plain distillation. Noised to time t' the guess and real data are compared; the gradient reaches the
student through the noising.

Source: arXiv 2412.09619 (the objective), after arXiv 2311.09257 (UFOGen) and arXiv 2403.12015 (LADD), from
which the heads on frozen features are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonet.research.snapgen import distillation, flow

Features = Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]
"""Maps (B, C_i, H_i, W_i) inside a trunk for latents, times, context and its mask."""


class Head(nn.Module):
    """Logits (B, H·W) of realness, one for each place of a feature map (B, width, H, W)."""

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 1)
        self.norm = nn.GroupNorm(8, hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm(self.conv1(features)), 0.2)
        return self.conv3(F.leaky_relu(self.conv2(y), 0.2)).flatten(1)


class Discriminator(nn.Module):
    """A frozen `trunk` and one trained head per feature map; `widths` are those of the maps.

    The trunk's parameters never get a gradient and it stays in evaluation; the gradient of its input remains.
    """

    def __init__(self, trunk: nn.Module, features: Features, widths: Sequence[int], hidden: int = 64) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.features = features
        self.heads = nn.ModuleList(Head(width, hidden) for width in widths)

    def train(self, mode: bool = True) -> Discriminator:
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, places of all maps): large for real latents."""
        maps = self.features(self.trunk, latents, time, context, mask)
        return torch.cat([head(each) for head, each in zip(self.heads, maps, strict=True)], dim=1)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of max(0, 1 - real) + max(0, 1 + fake) over logits."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


def non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of -log σ(real) - log(1 - σ(fake)) over logits."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """Mean of -log σ(fake) over logits."""
    return F.softplus(-fake).mean()


@dataclass(frozen=True)
class AdversarialLoss:
    """What the two sides minimise, of logits."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


HINGE = AdversarialLoss(hinge_discriminator, hinge_generator)
NON_SATURATING = AdversarialLoss(non_saturating_discriminator, non_saturating_generator)


def step_times(
    count: int, steps: int, shift: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Times (count,) at which a sampler of `steps` steps asks the student, drawn at random, and for each the
    next smaller one, to which the guess is noised: at least 1/100, since at 0 nothing is left to compare.
    """
    times = flow.schedule(steps, shift).float()
    index = torch.randint(steps, (count,), generator=generator)
    return times[index], times[index + 1].clamp(min=0.01)


@dataclass(frozen=True)
class Noised:
    """The student's guess and the real picture, each noised to the time `time` (B,) of the comparison."""

    fake: Tensor
    real: Tensor
    time: Tensor


def noised_again(
    point: Tensor,
    prediction: Tensor,
    time: Tensor,
    picture: Tensor,
    after: Tensor,
    generator: torch.Generator | None = None,
) -> Noised:
    """From a `point` (B, ...) at `time` (B,), the student's `prediction` there and the real `picture`: both
    pictures with fresh noise at the times `after` (B,). At time 0 they are the pictures themselves.
    """
    guess = flow.picture_of(point, prediction, time)
    noise = torch.randn(picture.shape, generator=generator).to(picture)
    fresh = torch.randn(picture.shape, generator=generator).to(picture)
    return Noised(flow.at(guess, noise, after), flow.at(picture, fresh, after), after)


def student_loss(
    fake_logits: Tensor,
    levels: distillation.MultiLevel | None,
    adversarial: AdversarialLoss = HINGE,
    weight: float = 1.0,
) -> Tensor:
    """weight · adversarial + multi-level distillation; without `levels`, the adversarial part alone."""
    loss = weight * adversarial.generator(fake_logits)
    return loss if levels is None else loss + levels.total()
