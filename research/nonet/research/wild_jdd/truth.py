"""How far ground truth can be trusted, judged from the ground truth itself.

A picture that came out of a simple demosaicking step keeps its trace: interpolated values are averages of
their neighbours, so second differences are smaller where a colour was filled in than where it was sampled,
with the period of the Bayer pattern (A. C. Gallagher, T. Chen, "Image authentication by detecting traces of
demosaicing", CVPR Workshops 2008). The ratio of the two energies is near 1 for a picture that was never
mosaicked, whatever it shows, and falls towards 0 the more structure the interpolation has destroyed; where
there was nothing to destroy it stays near 1, and the patch does no harm.

The paper's lambda says how many observations a ground truth is worth and is one number there; making it fall
with this ratio is a design choice of this package. What counts as suspicious was set on the training
photographs: of those the lowest 2 % have a ratio of 0.83, of spoiled copies of them half lie below 0.33.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUSPICIOUS, SOUND = 0.6, 0.85  # ratios between which trust rises from `LEAST` to 1
LEAST = 0.01


def interpolation_ratio(truth: Tensor) -> Tensor:
    """Energy of second differences at filled-in over sampled places of red and blue, for the Bayer phase that
    makes it smallest: (N, 3, P, P) -> (N,).
    """
    count = len(truth)
    across = (truth[..., 1:-1] - (truth[..., :-2] + truth[..., 2:]) / 2).square()  # column c stands at c - 1
    along = (truth[..., 1:-1, :] - (truth[..., :-2, :] + truth[..., 2:, :]) / 2).square()
    ratios = []
    for top in (0, 1):
        for left in (0, 1):
            filled, sampled = truth.new_zeros(count), truth.new_zeros(count)
            for channel, row, column in ((0, top, left), (2, 1 - top, 1 - left)):
                filled += across[:, channel, row::2, column::2].mean(dim=(1, 2))
                filled += along[:, channel, row::2, column::2].mean(dim=(1, 2))
                sampled += across[:, channel, row::2, 1 - column :: 2].mean(dim=(1, 2))
                sampled += along[:, channel, 1 - row :: 2, column::2].mean(dim=(1, 2))
            ratios.append(filled / sampled.clamp_min(1e-12))
    return torch.stack(ratios).amin(dim=0)


def reliability(truth: Tensor) -> Tensor:
    """Share of the full trust that each patch (N, 3, P, P) deserves: (N, 1, 1, 1) in [`LEAST`, 1]."""
    rise = ((interpolation_ratio(truth) - SUSPICIOUS) / (SOUND - SUSPICIOUS)).clamp(0, 1)
    return (LEAST + (1 - LEAST) * rise)[:, None, None, None]
