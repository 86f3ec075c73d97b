"""What the mixture of experts learns from: L2 for the image, the bound for its uncertainty, teachers for both
ends of the light.

    image        squared error to the ground truth, and to a teacher's image: demosaicnet up to a level of two
                 (of 255), above it the noise-aware network of Gharbi et al., which is told the true level
    noise level  difference of logarithms to the true level
    doubt        the evidence lower bound and the error scale's likelihood at the image as it is

Each part moves parameters of its own: the image is not moved by the bound, nor the level by the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nonet.research.wild_jdd.bayer import bilinear, mosaic, pack
from nonet.research.wild_jdd.degradation import PriorConfig, make_prior
from nonet.research.wild_jdd.elbo import Posterior, balanced_mean, elbo_terms, error_scale_loss
from nonet.research.wild_jdd.image_chain import ImageChain
from nonet.research.wild_jdd.mixture import CLEAN, Mixture

FAINT = 2 / 255
"""Patches with noise up to this are taught by the network that never saw any."""
SOFT = 0.5 / 255
"""Added to levels before their logarithms are compared: below it there is nothing to tell apart."""


@dataclass(frozen=True)
class Lesson:
    """A batch: ground truth (N, 3, P, P), its noisy mosaic (N, 1, P, P), true levels (N, 3, P, P)."""

    truth: Tensor
    sampled: Tensor
    levels: Tensor
    border: int

    @property
    def inner(self) -> slice:
        """Rows and columns that carry a loss; the others see zero padding."""
        return slice(self.border, self.truth.shape[-1] - self.border)

    def packed_levels(self) -> Tensor:
        """True standard deviation of the readings of each 2x2 square together, (N, 1, P/2, P/2)."""
        return pack(mosaic(self.levels)).square().mean(dim=1, keepdim=True).sqrt()


def level_loss(level: Tensor, lesson: Lesson) -> Tensor:
    """Mean difference of logarithms between predicted (N, 1, P/2, P/2) and true levels."""
    half = lesson.border // 2
    part = (..., slice(half, level.shape[-2] - half), slice(half, level.shape[-1] - half))
    ratio = torch.log((level[part] + SOFT) / (lesson.packed_levels()[part] + SOFT))
    return ratio.abs().mean()


def image_loss(image: Tensor, teachers: Tensor | None, lesson: Lesson, taught: float) -> Tensor:
    """Squared error to the truth plus `taught` times that to the teachers' images, all (N, 3, P, P)."""
    inner = lesson.inner
    seen = image[..., inner, inner]
    loss = (seen - lesson.truth[..., inner, inner]).square().mean()
    if teachers is not None:
        loss = loss + taught * (seen - teachers[..., inner, inner]).square().mean()
    return loss


def teachers_image(network: Mixture, told: ImageChain, lesson: Lesson) -> Tensor:
    """Each patch by the teacher of its noise, (N, 3, P, P), without gradient."""
    packed, levels = pack(lesson.sampled), lesson.packed_levels()
    faint = levels.amax(dim=(1, 2, 3)) <= FAINT
    answer = torch.empty_like(lesson.truth)
    with torch.no_grad():
        for chosen, teacher in ((faint, network.experts[CLEAN]), (~faint, told)):
            if chosen.any():
                answer[chosen] = teacher(packed[chosen], levels[chosen])
    return answer


def doubt_loss(posterior: Posterior, lesson: Lesson, config: PriorConfig, balance: float) -> Tensor:
    """The bound and the error scale's likelihood; neither moves the image."""
    inner = lesson.inner
    posterior = replace(posterior, mean=posterior.mean.detach(), level=None)
    seen = Posterior(
        **{name: value[..., inner, inner] for name, value in vars(posterior).items() if value is not None}
    )
    interpolated = bilinear(lesson.sampled)
    prior = make_prior(lesson.truth, interpolated, lesson.levels, config)
    target = lesson.truth[..., inner, inner]
    prior = replace(prior, mean=target, beta=prior.beta[..., inner, inner])
    terms = elbo_terms(seen, interpolated[..., inner, inner], prior)
    return balanced_mean(terms, seen, config.trust, balance) + error_scale_loss(seen, target)
