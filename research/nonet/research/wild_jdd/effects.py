"""The paper's other effects on real photographs: a calibrated noise map (B), adapting to new noise (C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.finetune import FinetuneConfig, finetune
from nonet.research.wild_jdd.metrics import psnr
from nonet.research.wild_jdd.network import WildJdd
from nonet.research.wild_jdd.noise import (
    add_correlated,
    add_gaussian,
    gaussian_bump_map,
    poisson_gaussian_level,
)
from nonet.research.wild_jdd.restore import restore
from nonet.research.wild_jdd.restored import Restored, Restorer
from nonet.research.wild_jdd.scoring import PictureSet

Spoiler = Callable[[Tensor, torch.Generator], Tensor]  # clean picture -> noisy mosaic


def flat_pixels(picture: Tensor, share: float = 0.2) -> Tensor:
    """Mask (H, W) of the share of pixels with the least local variation of a clean picture (1, 3, H, W)."""
    mean = F.avg_pool2d(picture, 7, stride=1, padding=3)
    variance = (F.avg_pool2d(picture**2, 7, stride=1, padding=3) - mean**2).mean(dim=1)[0]
    return variance <= torch.quantile(variance.flatten()[::7], share)


def flat_noise_variance(picture: Tensor, restored: Restored) -> float:
    """Mean predicted noise variance on the flattest fifth of a picture's pixels."""
    return float(restored.noise[0][:, flat_pixels(picture)].square().mean())


def varying_map_correlation(
    restorer: Restorer, pictures: PictureSet, *, low: float = 2.0, high: float = 25.0
) -> float:
    """Mean rank correlation of the predicted noise map with a spatially varying true one, over 8x8 blocks."""
    correlations = []
    for index, picture in enumerate(pictures.pictures):
        size = min(picture.shape[-2:]) // 8 * 8
        part = picture[..., :size, :size]
        generator = torch.Generator().manual_seed(400 + index)
        levels = gaussian_bump_map(size, generator, low=low / 255, high=high / 255, raise_upper=5 / 255)
        restored = restorer(add_gaussian(mosaic(part), levels, generator))
        predicted = F.avg_pool2d(restored.noise.square().mean(dim=1, keepdim=True), 8)
        truth = F.avg_pool2d((levels**2)[None, None], 8)
        correlations.append(rank_correlation(predicted.flatten(), truth.flatten()))
    return float(np.mean(correlations))


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two vectors without ties of note."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


@dataclass(frozen=True)
class LevelNoise:
    """Noise of the flat places of one range of brightness: level, measured and predicted standard deviation,
    all on the 0-255 scale."""

    level: float
    measured: float
    predicted: float


def noise_by_level(
    readings: Tensor, restored: Restored, *, bins: int = 8, block: int = 10
) -> list[LevelNoise]:
    """Measured and predicted noise of one real mosaic (1, 1, H, W), for ranges of brightness of equal count.

    Blocks of each colour plane count whose restored picture is among the flattest fifth of their range.
    Measured: second differences in both directions (J. Immerkaer, CVIU 64(2), 1996), which constant and
    sloped content leaves at zero.
    """
    planes = F.pixel_unshuffle(readings, 2)[0]
    kernel = torch.tensor([1.0, -2.0, 1.0])
    both = F.conv2d(planes[:, None], (kernel[:, None] * kernel)[None, None]).square() / 36

    def blocks(values: Tensor) -> Tensor:
        """Means over blocks of planes (4, h, w)."""
        return F.avg_pool2d(values[:, None], block).flatten()

    def part(values: Tensor) -> Tensor:
        """The readings' own places, cut as the second differences are."""
        return F.pixel_unshuffle(mosaic(values), 2)[0][:, 1:-1, 1:-1]

    image = part(restored.image)
    level = blocks(image)
    roughness = blocks(image.square()) - level.square()
    measured, predicted = blocks(both[:, 0]), blocks(part(restored.noise.square()))
    rows = []
    for chosen in level.argsort().chunk(bins):
        flat = chosen[roughness[chosen].argsort()[: max(len(chosen) // 5, 1)]]
        rows.append(
            LevelNoise(
                255 * float(level[flat].mean()),
                255 * float(measured[flat].mean().sqrt()),
                255 * float(predicted[flat].mean().sqrt()),
            )
        )
    return rows


def unseen_noise() -> dict[str, Spoiler]:
    """Noise that a network trained on sigma <= 15 has not met."""

    def poisson_gaussian(picture: Tensor, generator: torch.Generator) -> Tensor:
        return add_gaussian(mosaic(picture), mosaic(poisson_gaussian_level(picture, 0.01, 0.0002)), generator)

    return {
        "sigma 30": lambda picture, generator: add_gaussian(mosaic(picture), 30 / 255, generator),
        "sigma 40": lambda picture, generator: add_gaussian(mosaic(picture), 40 / 255, generator),
        "Poisson-Gaussian 0.01, 0.0002": poisson_gaussian,
        "correlated, sigma 15": lambda picture, generator: add_correlated(
            mosaic(picture), 15 / 255, generator
        ),
        "sigma 10 (seen in training)": lambda picture, generator: add_gaussian(
            mosaic(picture), 10 / 255, generator
        ),
    }


@dataclass(frozen=True)
class Adaptation:
    """PSNR (10 px cut) before and after adapting to one noisy picture, with and without the mask."""

    noise: str
    picture: str
    before: float
    masked: float
    unmasked: float
    kept_step: int


def adapt_all(
    network: WildJdd,
    pictures: PictureSet,
    config: FinetuneConfig,
    *,
    noises: dict[str, Spoiler] | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Adaptation]:
    """Adapt to every picture under every unseen noise."""
    rows = []
    for name, spoiler in (noises or unseen_noise()).items():
        for index, picture in enumerate(pictures.pictures):
            readings = spoiler(picture, torch.Generator().manual_seed(500 + index))
            before = psnr(restore(network, readings).mean, picture, border=10)
            scores, kept = {}, 0
            for mask in (True, False):
                adapted, outcome = finetune(network, readings, replace(config, mask=mask))
                scores[mask] = psnr(restore(adapted, readings).mean, picture, border=10)
                kept = outcome.kept_step if mask else kept
            rows.append(
                Adaptation(name, f"{pictures.name} {index + 1}", before, scores[True], scores[False], kept)
            )
            if report is not None:
                report(
                    f"{name}, {rows[-1].picture}: {before:.2f} -> {scores[True]:.2f} masked, "
                    f"{scores[False]:.2f} unmasked (step {kept})"
                )
    return rows
