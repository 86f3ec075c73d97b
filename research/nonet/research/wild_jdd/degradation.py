"""The two-stage degradation of the paper and the conjugate prior around uncertain ground truth.

    stage 1   sigma_j^2 ~ InvGamma(alpha, beta_j),   z_j | sigma_j^2 ~ Normal(y_j, sigma_j^2 / lambda)
    stage 2   xtilde_j | z_j, sigma_j^2 ~ Normal(z_j, sigma_j^2)

y is the ground truth at hand (imperfect), z the clean image, xtilde the bilinear interpolation of the noisy
mosaic; j runs over pixels and channels. alpha and beta follow VDNet: alpha = p^2/2 - 1, beta = p^2/2 * xi
for a window side p, so the mode of sigma^2 is xi.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nonet.research.wild_jdd.truth import reliability


class VarianceSource(StrEnum):
    """Where xi, the local variance the prior is centred on, comes from."""

    TRUE_MAP = "true_map"  # the known level of synthetic noise (VDNet's synthetic setting)
    RESIDUAL = (
        "residual"  # local mean of (xtilde - y)^2 (VDNet's real-data setting); holds interpolation error too
    )


@dataclass(frozen=True)
class PriorConfig:
    """Hyper-parameters of stage 1.

    Attributes:
        trust: lambda, pseudo-observations that the ground truth is worth. Unknown in the paper; design
            choice.
        window: p, the window's side; 7 in VDNet.
        source: where xi comes from.
        floor: smallest standard deviation that xi stands for, on the 0-255 scale; keeps lambda/sigma^2
            finite.
        judged: let lambda fall where the ground truth itself looks interpolated (see `truth`); a design
            choice beyond the paper.
    """

    trust: float = 100.0
    window: int = 7
    source: VarianceSource = VarianceSource.TRUE_MAP
    floor: float = 2.0
    judged: bool = False

    def __post_init__(self) -> None:
        if self.trust <= 0:
            raise ValueError(f"trust must be positive, got {self.trust}")
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window must be odd and at least 3, got {self.window}")
        if self.floor <= 0:
            raise ValueError(f"floor must be positive, got {self.floor}")

    @property
    def alpha(self) -> float:
        return self.window**2 / 2 - 1

    @property
    def beta_per_variance(self) -> float:
        return self.window**2 / 2


@dataclass(frozen=True)
class Prior:
    """Normal-inverse-gamma(y, lambda, alpha, beta): `mean` and `beta` are (N, 3, H, W), `trust` is one lambda
    or one for each patch, (N, 1, 1, 1)."""

    mean: Tensor
    trust: float | Tensor
    alpha: float
    beta: Tensor

    @property
    def log_trust(self) -> float | Tensor:
        return torch.log(self.trust) if isinstance(self.trust, Tensor) else math.log(self.trust)

    def sample(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """One draw (z, sigma^2) of stage 1, each (N, 3, H, W)."""
        shape = torch.full_like(self.beta, self.alpha)
        variance = self.beta / torch._standard_gamma(shape, generator=generator)
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + noise * torch.sqrt(variance / self.trust), variance


def observe(clean: Tensor, variance: Tensor, generator: Generator) -> Tensor:
    """Stage 2: an observation of `clean` with independent Gaussian noise of the given variance."""
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return clean + noise * torch.sqrt(variance)


def gaussian_window(side: int) -> Tensor:
    """Separable Gaussian window (side,) that sums to 1, with deviation as OpenCV takes it for that side."""
    deviation = 0.3 * ((side - 1) / 2 - 1) + 0.8
    offsets = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.exp(-(offsets**2) / (2 * deviation**2))
    return weights / weights.sum()


def local_mean(values: Tensor, side: int) -> Tensor:
    """Gaussian-weighted mean over a side x side window of (N, C, H, W), mirrored at the border."""
    radius, channels = side // 2, values.shape[1]
    window = gaussian_window(side).to(values)
    padded = F.pad(values, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, window.view(1, 1, side, 1).expand(channels, 1, side, 1), groups=channels)
    return F.conv2d(rows, window.view(1, 1, 1, side).expand(channels, 1, 1, side), groups=channels)


def make_prior(truth: Tensor, interpolated: Tensor, levels: Tensor | None, config: PriorConfig) -> Prior:
    """The prior of stage 1 for ground truth (N, 3, H, W).

    Args:
        truth: y, in [0, 1].
        interpolated: xtilde, bilinear interpolation of the noisy mosaic, same shape.
        levels: true standard deviation of the noise, same shape; needed for `VarianceSource.TRUE_MAP`.
        config: hyper-parameters.

    Raises:
        ValueError: if the true map is asked for and not given.
    """
    if config.source is VarianceSource.TRUE_MAP:
        if levels is None:
            raise ValueError("the prior is set to use the true noise map, which was not given")
        xi = levels**2
    else:
        xi = local_mean((interpolated - truth) ** 2, config.window)
    xi = xi.clamp_min((config.floor / 255) ** 2)
    trust = config.trust * reliability(truth) if config.judged else config.trust
    return Prior(truth, trust, config.alpha, config.beta_per_variance * xi)


def initial_logs(config: PriorConfig, typical_sigma: float = 10.0) -> tuple[float, float, float]:
    """Where (log lambda, log alpha, log beta) of an untrained network should start, for noise of
    `typical_sigma`/255."""
    variance = (typical_sigma / 255) ** 2
    return (
        math.log(config.trust + 1),
        math.log(config.alpha + 0.5),
        math.log(config.beta_per_variance * variance),
    )
