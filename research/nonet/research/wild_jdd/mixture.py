"""A blind network of three experts: which of them speaks is decided by the noise that it sees.

    packed mosaic (N, 4, h, w) -> noise level (N, 1, h, w), seen in 18 x 18 pixels
      -> shares of three experts for each place, as functions of the level alone
      -> image = sum of share * expert
      -> a small network on mosaic, image and level: logs of lambda, alpha, beta, and the error scale

Photographs without noise are restored best by a network that never saw any, noisy ones by networks that did;
two of those, trained apart, err differently, so their mean is better than each. An expert is run only if a
place of the batch needs it: a clean capture costs one expert, a noisy one two, what lies between three.
The level and the uncertainty see the image, and do not shape it: L2 moves the image, the bound the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonet.research.wild_jdd.degradation import PriorConfig, initial_logs
from nonet.research.wild_jdd.elbo import Posterior
from nonet.research.wild_jdd.image_chain import ImageChain

CLEAN, BLIND, TOLD = 0, 1, 2
"""The experts: without noise, blind to its level, told its level."""
ALONE, SILENT = 1.6, 6.5
"""Levels (0-255 scale) up to which the first expert speaks alone, and from which it is silent."""
LEVEL_WIDTH, LEVEL_REACH = 32, 5
DOUBT_WIDTH, DOUBT_REACH = 48, 2
LOWEST, HIGHEST = 0.1 / 255, 60 / 255


class NoiseLevel(nn.Module):
    """Standard deviation of the sensor noise, (N, 4, h, w) -> (N, 1, h, w), on the mosaic's scale."""

    def __init__(self, width: int = LEVEL_WIDTH) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        before = 4
        for spacing in (1, 1, 2, 1):
            conv = nn.Conv2d(before, width, 3, padding=spacing, dilation=spacing)
            convs += [conv, nn.ReLU(inplace=True)]
            before = width
        last = nn.Conv2d(width, 1, 1)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.constant_(last.bias, math.log(5 / 255))  # type: ignore[arg-type]
        self.body = nn.Sequential(*convs, last)

    def forward(self, packed: Tensor) -> Tensor:
        return torch.exp(self.body(packed).clamp(math.log(LOWEST), math.log(HIGHEST)))


class Doubt(nn.Module):
    """Logs of lambda, alpha, beta (N, 9, 2h, 2w) and of the error scale (N, 3, 2h, 2w)."""

    def __init__(self, prior: PriorConfig, width: int = DOUBT_WIDTH) -> None:
        super().__init__()
        last = nn.Conv2d(width, 48, 1)
        nn.init.normal_(last.weight, std=1e-3)
        log_lambda, log_alpha, _ = initial_logs(prior)
        starts = (log_lambda, log_alpha, math.log(prior.beta_per_variance), math.log(0.5))
        with torch.no_grad():
            for which, start in enumerate(starts):
                last.bias[12 * which : 12 * which + 12] = start  # type: ignore[index]
        self.body = nn.Sequential(
            nn.Conv2d(17, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            last,
        )

    def forward(self, packed: Tensor, image: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        log_level = torch.log(level)
        seen = torch.cat([packed, F.pixel_unshuffle(image, 2), log_level], dim=1)
        parameters = self.body(seen)
        logs, scale = parameters[:, :36], parameters[:, 36:]
        # Log beta and the error scale are corrections of the level, so the smallest network starts sensibly.
        logs = torch.cat([logs[:, :24], logs[:, 24:] + 2 * log_level], dim=1)
        return F.pixel_shuffle(logs, 2), F.pixel_shuffle(scale + log_level, 2)


class Mixture(nn.Module):
    """Packed RGGB mosaic (N, 4, h, w), values about [0, 1] -> `Posterior` of maps (N, 3, 2h, 2w).

    Values within `halo` pixels of a border see zero padding instead of picture; callers mirror-pad the mosaic
    and cut that away.
    """

    def __init__(self, prior: PriorConfig | None = None) -> None:
        super().__init__()
        self.level = NoiseLevel()
        self.experts = nn.ModuleList([ImageChain(told=False), ImageChain(told=False), ImageChain(told=True)])
        self.doubt = Doubt(prior or PriorConfig())

    @property
    def halo(self) -> int:
        """Receptive radius in full-resolution pixels, rounded up to a multiple of 4."""
        chain = self.experts[0]
        assert isinstance(chain, ImageChain)
        return -(-(2 * (LEVEL_REACH + chain.depth + DOUBT_REACH) + 1) // 4) * 4

    def forward(self, packed: Tensor) -> Posterior:
        level = self.level(packed)
        told = level.detach()
        image = self.image(packed, told)
        logs, log_std = self.doubt(packed, image.detach(), told)
        return Posterior(image, logs[:, 0:3], logs[:, 3:6], logs[:, 6:9], log_std, level)

    def image(self, packed: Tensor, level: Tensor) -> Tensor:
        """The experts' image (N, 3, 2h, 2w) for a noise level (N, 1, h, w)."""
        total = torch.zeros_like(packed[:, :3]).repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        for expert, share in zip(self.experts, shares(level), strict=True):
            total = total + _if_needed(expert, share, packed, level)
        return total

    def parameters_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def shares(level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What each expert contributes at levels (N, 1, h, w): in [0, 1], together 1.

    The first one's share falls with the logarithm of the level from 1 at `ALONE` to exactly 0 at `SILENT`;
    the two others halve the rest.
    """
    clean = (math.log(SILENT / 255) - torch.log(level)) / math.log(SILENT / ALONE)
    clean = clean.clamp(0.0, 1.0)
    rest = (1 - clean) / 2
    return clean, rest, rest


def _if_needed(expert: nn.Module, share: Tensor, packed: Tensor, level: Tensor) -> Tensor:
    """share * expert's image, without running the expert if the share is zero everywhere.

    A place with no share is exactly zero either way, so an answer does not depend on its batch.
    """

    def run(packed: Tensor, level: Tensor, share: Tensor) -> Tensor:
        wide = share.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        return torch.where(wide > 0, wide * expert(packed, level), torch.zeros_like(wide))

    def skip(packed: Tensor, level: Tensor, share: Tensor) -> Tensor:
        wide = share.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        return torch.zeros_like(wide).expand(-1, 3, -1, -1).clone()

    needed = (share > 0).any()
    if torch.compiler.is_exporting():
        answer: Tensor = torch.cond(needed, run, skip, (packed, level, share))
        return answer
    branch: Callable[[Tensor, Tensor, Tensor], Tensor] = run if bool(needed) else skip
    return branch(packed, level, share)
