"""How honest the predicted error scale is: coverage, reliability, and the quantiles that make it so.

The network predicts a scale s per value. An interval of level p is mean +- k_p * s, where k_p is the
p-quantile of |error| / s on held-out training photographs (split conformal calibration). Coverage is then
measured on test sets the quantiles never saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.noise import add_gaussian
from nonet.research.wild_jdd.restored import Restored, Restorer

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BINS = 4096
LARGEST = 40.0  # ratios beyond this fall in the last bin


@dataclass(frozen=True)
class Quantiles:
    """k_p by level p; for a Gaussian they would be 0.674 (50 %), 1.645 (90 %), 1.960 (95 %)."""

    factors: Mapping[float, float]

    @property
    def standard_deviations(self) -> float:
        """Multiple of s that covers as much as one standard deviation of a Gaussian does."""
        levels, factors = zip(*sorted(self.factors.items()), strict=True)
        return float(np.interp(0.6827, levels, factors))


@dataclass(frozen=True)
class Reliability:
    """Coverage measured at each nominal level, and how deviation follows prediction.

    Attributes:
        coverage: share of values inside the interval, by nominal level.
        predicted: mean predicted deviation (0-255 scale) in ten equal parts of the values ordered by it.
        observed: root mean squared error (0-255 scale) of the same parts.
    """

    coverage: Mapping[float, float]
    predicted: tuple[float, ...]
    observed: tuple[float, ...]


class RatioHistogram:
    """Histogram of |error| / s: bounded memory for any number of pixels."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS + 1, dtype=np.int64)

    def add(self, error: Tensor, scale: Tensor) -> None:
        ratio = (error.abs() / scale).flatten().clamp(max=LARGEST)
        index = (ratio * (BINS / LARGEST)).long()
        self.counts += torch.bincount(index, minlength=BINS + 1).numpy()

    def quantiles(self, levels: Sequence[float] = LEVELS) -> Quantiles:
        """Smallest bin edge below which the asked share lies.

        Raises:
            ValueError: if nothing was added.
        """
        cumulative = np.cumsum(self.counts)
        if cumulative[-1] == 0:
            raise ValueError("no errors were collected")
        share = cumulative / cumulative[-1]
        return Quantiles(
            {level: float((np.searchsorted(share, level) + 1) * LARGEST / BINS) for level in levels}
        )

    def coverage(self, quantiles: Quantiles) -> dict[float, float]:
        """Share of values within each interval."""
        cumulative = np.cumsum(self.counts)
        found = {}
        for level, factor in quantiles.factors.items():
            bins = min(max(round(factor * BINS / LARGEST), 1), BINS)
            found[level] = float(cumulative[bins - 1] / cumulative[-1])
        return found


class Study:
    """Errors against predicted deviations, level by level, in bounded memory."""

    def __init__(self, *, border: int = 10, samples: int = 40_000, seed: int = 0) -> None:
        self._histograms: dict[str, RatioHistogram] = {}
        self._samples: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._border = border
        self._count = samples
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, sigma: float, truth: Tensor, restored: Restored) -> None:
        """Take in one restored picture; the border does not count."""
        height, width = truth.shape[-2:]
        inner = (..., slice(self._border, height - self._border), slice(self._border, width - self._border))
        error, std = (restored.image - truth)[inner], restored.std[inner]
        name = f"{sigma:g}"
        self._histograms.setdefault(name, RatioHistogram()).add(error, std)
        chosen = torch.randint(error.numel(), (self._count,), generator=self._generator)
        pair = (std.flatten()[chosen], error.flatten()[chosen].square())
        self._samples.setdefault(name, []).append(pair)

    def quantiles(self) -> Quantiles:
        """Interval factors that would have made every interval honest on what was taken in."""
        return self._together().quantiles()

    def reliability(self, quantiles: Quantiles) -> dict[str, Reliability]:
        """Coverage and deviation against prediction, by level and (key "all") together."""
        found = {
            name: _summary(histogram, self._samples[name], quantiles)
            for name, histogram in self._histograms.items()
        }
        pairs = [pair for samples in self._samples.values() for pair in samples]
        return {**found, "all": _summary(self._together(), pairs, quantiles)}

    def _together(self) -> RatioHistogram:
        together = RatioHistogram()
        for histogram in self._histograms.values():
            together.counts += histogram.counts
        return together


def fit_quantiles(
    restorer: Restorer, pictures: Iterable[Tensor], sigmas: Sequence[float], *, seed: int = 0
) -> Quantiles:
    """Interval factors from pictures (1, 3, H, W) that were held out of training, at the given levels."""
    study = Study(seed=seed)
    for index, picture in enumerate(pictures):
        for sigma in sigmas:
            generator = torch.Generator().manual_seed(seed + 1000 * index + round(sigma))
            restored = restorer(add_gaussian(mosaic(picture), sigma / 255, generator))
            study.add(sigma, picture, restored)
    return study.quantiles()


def _summary(
    histogram: RatioHistogram, samples: list[tuple[Tensor, Tensor]], quantiles: Quantiles
) -> Reliability:
    unit = quantiles.standard_deviations
    predictions = torch.cat([prediction for prediction, _ in samples]) * unit
    squares = torch.cat([square for _, square in samples])
    order = predictions.argsort()
    return Reliability(
        histogram.coverage(quantiles),
        tuple(float(part.square().mean().sqrt() * 255) for part in predictions[order].chunk(10)),
        tuple(float(part.mean().sqrt() * 255) for part in squares[order].chunk(10)),
    )


def draw_reliability(results: Mapping[str, Reliability], path: str) -> None:
    """Reliability plot as PNG: nominal and measured coverage, predicted and observed deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for name, result in results.items():
        levels = sorted(result.coverage)
        left.plot(
            [100 * p for p in levels], [100 * result.coverage[p] for p in levels], marker="o", label=name
        )
        right.plot(result.predicted, result.observed, marker="o", label=name)
    left.plot([0, 100], [0, 100], color="grey", linestyle="--", linewidth=1)
    left.set(
        xlabel="nominal interval, %",
        ylabel="values inside, %",
        title="Coverage",
        xlim=(0, 100),
        ylim=(0, 100),
    )
    top = max(max(*result.predicted, *result.observed) for result in results.values())
    right.plot([0, top], [0, top], color="grey", linestyle="--", linewidth=1)
    right.set(
        xlabel="predicted standard deviation (0-255)",
        ylabel="root mean squared error (0-255)",
        title="Deviation, ten equal parts",
    )
    left.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
