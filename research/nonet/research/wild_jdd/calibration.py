"""How honest the predicted error scale is: coverage, reliability, and the quantiles that make it so.

The network predicts a scale s per value and a noise level. How far s is off depends on the noise, so s is
first multiplied by a function of the predicted level, such that it covers what one standard deviation of a
Gaussian covers at every level. An interval of level p is then mean +- k_p * s, where k_p is the p-quantile
of |error| / s. Both are fitted on held-out training photographs (split conformal calibration, by group).
Coverage is measured on test sets that neither ever saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.noise import add_gaussian
from nonet.research.wild_jdd.restored import Restored, Restorer

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BINS = 4096
LARGEST = 40.0  # ratios beyond this fall in the last bin
ONE_DEVIATION = 0.6827  # share of a Gaussian within one standard deviation
KNOTS = (2.0, 3.5, 6.0, 10.0, 16.0, 25.0)  # predicted noise (0-255 scale) at which the scale is fitted
FEWEST = 20_000  # values that a knot of its own needs


@dataclass(frozen=True)
class Quantiles:
    """k_p by level p; for a Gaussian they would be 0.674 (50 %), 1.645 (90 %), 1.960 (95 %)."""

    factors: Mapping[float, float]

    @property
    def standard_deviations(self) -> float:
        """Multiple of s that covers as much as one standard deviation of a Gaussian does."""
        levels, factors = zip(*sorted(self.factors.items()), strict=True)
        return float(np.interp(ONE_DEVIATION, levels, factors))

    def in_units_of(self, unit: float) -> Quantiles:
        """The same intervals as multiples of a scale that is `unit` times as large."""
        return Quantiles({level: factor / unit for level, factor in self.factors.items()})


@dataclass(frozen=True)
class DeviationScale:
    """What the network's raw scale is multiplied by: linear in the logarithm of the predicted noise between
    `KNOTS`, constant beyond them.

    Attributes:
        factors: values at the knots.
    """

    factors: tuple[float, ...] = (1.0,) * len(KNOTS)

    def __post_init__(self) -> None:
        if len(self.factors) != len(KNOTS) or min(self.factors) <= 0:
            raise ValueError(f"the scale needs {len(KNOTS)} positive factors")

    def __call__(self, noise: Tensor) -> Tensor:
        """Factors for predicted noise levels on the [0, 1] scale, of the same shape."""
        place = torch.log(noise.clamp_min(1e-6) * 255)
        knots = [math.log(knot) for knot in KNOTS]
        value = torch.full_like(place, self.factors[0])
        for index, width in enumerate(np.diff(knots).tolist()):
            slope = (self.factors[index + 1] - self.factors[index]) / width
            value = value + slope * (place - knots[index]).clamp(0.0, width)
        return value

    def times(self, unit: float) -> DeviationScale:
        """The scale with every factor multiplied."""
        return DeviationScale(tuple(factor * unit for factor in self.factors))


@dataclass(frozen=True)
class Calibration:
    """What makes a network's raw scale a standard deviation, and its interval factors in units of that."""

    scale: DeviationScale
    quantiles: Quantiles


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


@dataclass(frozen=True)
class Shown:
    """A clean picture (1, 3, H, W), the level of the noise added to it, and what became of it."""

    sigma: float
    picture: Tensor
    restored: Restored


def show(
    restorer: Restorer, pictures: Sequence[Tensor], sigmas: Sequence[float], *, seed: int = 0
) -> list[Shown]:
    """Restore pictures that were held out of training, each at every level.

    Args:
        restorer: gives the raw scale as `std`.
        pictures: clean, even in size.
        sigmas: levels at which noise is added, 0-255 scale.
        seed: of the noise.
    """
    return [
        Shown(sigma, picture, restorer(_noisy(picture, sigma, seed + 1000 * index + round(sigma))))
        for index, picture in enumerate(pictures)
        for sigma in sigmas
    ]


def fit_calibration(shown: Sequence[Shown], *, seed: int = 0) -> Calibration:
    """Scale and interval factors from pictures that were held out of training; `seed` of the sampling."""
    scale = _fit_scale((each.picture, each.restored) for each in shown)
    study = Study(seed=seed)
    for each in shown:
        restored = each.restored
        calibrated = replace(restored, std=restored.std * scale(restored.noise))
        study.add(each.sigma, each.picture, calibrated)
    quantiles = study.quantiles()
    unit = quantiles.standard_deviations
    return Calibration(scale.times(unit), quantiles.in_units_of(unit))


def _noisy(picture: Tensor, sigma: float, seed: int) -> Tensor:
    return add_gaussian(mosaic(picture), sigma / 255, torch.Generator().manual_seed(seed))


def _fit_scale(shown: Iterable[tuple[Tensor, Restored]], *, border: int = 10) -> DeviationScale:
    """At each knot the factor that makes the values of its neighbourhood honest at one deviation."""
    middles = torch.tensor([math.sqrt(low * high) for low, high in pairwise(KNOTS)])
    histograms = [RatioHistogram() for _ in KNOTS]
    for picture, restored in shown:
        height, width = picture.shape[-2:]
        inner = (..., slice(border, height - border), slice(border, width - border))
        error, std = (restored.image - picture)[inner], restored.std[inner]
        nearest = torch.bucketize(restored.noise[inner] * 255, middles)
        for index, histogram in enumerate(histograms):
            chosen = nearest == index
            if chosen.any():
                histogram.add(error[chosen], std[chosen])
    together = RatioHistogram()
    for histogram in histograms:
        together.counts += histogram.counts
    return DeviationScale(
        tuple(
            (each if each.counts.sum() >= FEWEST else together).quantiles().standard_deviations
            for each in histograms
        )
    )


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
