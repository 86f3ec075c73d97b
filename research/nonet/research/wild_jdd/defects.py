"""Defects put into ground truth on purpose, to test what training under ground-truth uncertainty is worth.

The defect is the one the paper shows in public data sets: a picture that was itself mosaicked, interpolated
simply and kept some noise. It touches a share of the patches; the mosaic that the network sees stays that of
the clean picture unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from nonet.research.wild_jdd.bayer import bilinear, mosaic


@dataclass(frozen=True)
class DefectConfig:
    """Attributes:
    share: share of patches with spoiled ground truth; 0 spoils none.
    sigma: residual noise in the spoiled truth, 0-255 scale.
    seen_by_input: sample the input from the spoiled truth too, as happens with a real imperfect data set.
    """

    share: float = 0.0
    sigma: float = 5.0
    seen_by_input: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.sigma < 0:
            raise ValueError("share must lie in [0, 1] and sigma must not be negative")


def spoil(clean: Tensor, config: DefectConfig, generator: Generator) -> Tensor:
    """Ground truth (N, 3, P, P) with the defect in a random share of the patches."""
    if config.share == 0:
        return clean
    chosen = torch.rand(len(clean), generator=generator) < config.share
    spoiled = bilinear(mosaic(clean))
    spoiled = spoiled + torch.randn(clean.shape, generator=generator) * (config.sigma / 255)
    return torch.where(chosen[:, None, None, None], spoiled.clamp(0, 1), clean)
