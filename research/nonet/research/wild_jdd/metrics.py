"""PSNR and SSIM as the reference tables of the specification define them.

Images are clipped to [0, 1] and rounded to 8 bit first. PSNR: mean squared error over all pixels and the
three channels, peak 1. SSIM: 7x7 uniform window with the unbiased covariance, averaged over valid windows
and channels (Z. Wang et al., 2004; the defaults most tools share).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PERFECT = 100.0  # reported for equal images, where the ratio is infinite


def quantised(image: Tensor) -> Tensor:
    """An image clipped to [0, 1] and rounded to 8 bit."""
    return torch.round(image.clamp(0, 1) * 255) / 255


def psnr(image: Tensor, truth: Tensor, *, border: int = 0) -> float:
    """Colour PSNR in dB of `image` (..., 3, H, W), ignoring `border` pixels at each side."""
    height, width = truth.shape[-2:]
    part = (..., slice(border, height - border), slice(border, width - border))
    error = (quantised(image)[part].double() - truth[part].double()).square().mean().item()
    return PERFECT if error == 0 else -10 * math.log10(error)


def ssim(image: Tensor, truth: Tensor, *, window: int = 7) -> float:
    """Mean structural similarity of `image` (N, 3, H, W), in [-1, 1]."""
    a, b = quantised(image).double(), truth.double()
    count = window * window
    unbiased = count / (count - 1)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    variance_a = unbiased * (mean(a * a) - mean_a**2)
    variance_b = unbiased * (mean(b * b) - mean_b**2)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    score = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    return float(score.mean())
