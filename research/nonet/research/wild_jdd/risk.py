"""How far a network's picture of one noisy mosaic is from the truth, without the truth.

For readings x = z + n with independent Gaussian noise of known variance v, and any function f,
    E (f(x) - z)^2 = E [ (f(x) - x)^2 - v + 2 v df/dx ]
(C. Stein, Annals of Statistics 9, 1981). The derivative is probed with one random sign for each reading
(S. Ramani, T. Blu, M. Unser, IEEE TIP 17(9), 2008). It speaks of the sampled values; the others follow them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nonet.research.wild_jdd.elbo import Posterior

PROBE = 1e-3  # size of the change that probes the derivative
FLAT_SHARE = 0.2
BINS = 8


def unbiased_risk(
    function: Callable[[Tensor], Tensor],
    readings: Tensor,
    variance: Tensor,
    *,
    border: int = 10,
    seed: int = 0,
) -> float:
    """Estimated mean squared error of `function` at the sampled values, `border` pixels left out.

    Args:
        function: readings (1, 1, H, W) to estimates of the same readings without noise.
        readings: the noisy mosaic.
        variance: of its noise, (1, 1, H, W).
        border: pixels at each side that do not count.
        seed: of the probe.
    """
    generator = Generator().manual_seed(seed)
    signs = (torch.randint(2, readings.shape, generator=generator) * 2 - 1).to(readings)
    with torch.no_grad():
        estimate = function(readings)
        slope = signs * (function(readings + PROBE * signs) - estimate) / PROBE
    risk = (estimate - readings).square() - variance + 2 * variance * slope
    height, width = readings.shape[-2:]
    return float(risk[..., border : height - border, border : width - border].mean())


def flat_noise_level(posterior: Posterior) -> Tensor:
    """Variance of the sensor noise (N, 3, H, W) as a function of brightness alone.

    The noise map of a network is right where the picture is flat and too high on texture, so its lowest fifth
    counts, for each of eight ranges of brightness; between them the variance is interpolated.
    """
    bright = F.avg_pool2d(F.pad(posterior.mean, (3, 3, 3, 3), mode="reflect"), 7, stride=1).contiguous()
    order = bright.flatten().argsort()
    levels = torch.stack([part.median() for part in bright.flatten()[order].chunk(BINS)])
    variances = torch.stack(
        [_low_quantile(part) for part in posterior.noise_mode().flatten()[order].chunk(BINS)]
    )
    above = torch.searchsorted(levels, bright).clamp(1, len(levels) - 1)
    width = (levels[above] - levels[above - 1]).clamp_min(1e-6)
    share = ((bright - levels[above - 1]) / width).clamp(0, 1)
    return variances[above - 1] + share * (variances[above] - variances[above - 1])


def _low_quantile(values: Tensor) -> Tensor:
    return values.sort().values[int(FLAT_SHARE * (len(values) - 1))]
