"""The housing task: prices of Californian districts, from the coast to the inland.

Data: R. K. Pace, R. Barry, "Sparse Spatial Autoregressions", 1997, one row for each block group of the 1990
census. Eight features as scikit-learn has them; the label is the median price in 100,000 USD.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Housing", "load_housing"]

_CLIP = 6.0  # standard deviations of the source


@dataclass(frozen=True)
class Housing:
    """Features [N, 8] and labels [N] of both domains, in the order of the file."""

    source: NDArray[np.float64]
    source_labels: NDArray[np.float64]
    target: NDArray[np.float64]
    target_labels: NDArray[np.float64]

    def raw(self) -> tuple[Tensor, Tensor]:
        """Features of source and target as they are, as published."""
        return _tensor(self.source), _tensor(self.target)

    def scaled(self, trained_on: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Features of source and target by the mean and deviation of the source rows that are trained on,
        cut off at six deviations."""
        mean, deviation = self.source[trained_on].mean(0), self.source[trained_on].std(0)
        source, target = (
            np.clip((each - mean) / deviation, -_CLIP, _CLIP) for each in (self.source, self.target)
        )
        return _tensor(source), _tensor(target)


def load_housing(root: Path) -> Housing:
    """Both domains: source on the coast, target inland, cut by two lines (specification, section 8).
    Raises FileNotFoundError if `california_housing` is absent."""
    with gzip.open(root / "california_housing" / "cal_housing.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    households = column["households"]
    features = np.stack(
        [
            column["median_income"],
            column["housing_median_age"],
            column["total_rooms"] / households,
            column["total_bedrooms"] / households,
            column["population"],
            column["population"] / households,
            column["latitude"],
            column["longitude"],
        ],
        1,
    )
    labels = column["median_house_value"] / 100_000
    west, north = column["longitude"], column["latitude"]
    coast = np.where(west <= -120, north <= -1.2 * west - 108, north <= -0.75 * west - 54)
    return Housing(features[coast], labels[coast], features[~coast], labels[~coast])


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
