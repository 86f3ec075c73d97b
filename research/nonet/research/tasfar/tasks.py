"""The tasks of the study: where a regressor learns, at which other site it is used, and how it is measured.

A task names the unit that leaks (a walk, a picture): rows of one unit are never on both sides of a split. A
tenth of the units of each side is held back by a fixed seed from training and from choosing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkSpec
from nonet.runtime.repository.manifest import DataSource

__all__ = ["HELD_BACK", "Domain", "Domains", "RegressionTask", "SourceTraining", "Split"]

#: Share of the units that is measured once.
HELD_BACK: Final = 0.1
_HELD_BACK_SEED: Final = 20261130
_TRAINED: Final = 0.8


@dataclass(frozen=True)
class Domain:
    """Labelled data of one place.

    Args:
        inputs: FP32 [N, ...].
        labels: [N, D], in the labels' units.
        units: [N], numbers of what leaks.
        extra: [N, ...], what only the source's training uses, such as density maps; empty without.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.float64]
    units: NDArray[np.int64]
    extra: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def chosen(self, rows: NDArray[np.intp]) -> Domain:
        """Some rows."""
        extra = self.extra[rows] if len(self.extra) else self.extra
        return Domain(self.inputs[rows], self.labels[rows], self.units[rows], extra)

    def tensor(self) -> Tensor:
        """The inputs."""
        return torch.from_numpy(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Domains:
    """Where the model learns, and where it is used."""

    source: Domain
    target: Domain


@dataclass(frozen=True)
class Split:
    """A domain cut by units: what is trained on, what is calibrated on, and what is held back."""

    train: Domain
    calibrate: Domain
    held_back: Domain

    @classmethod
    def of(cls, domain: Domain, seed: int) -> Split:
        """The held-back tenth is the same for every seed; of the rest four fifths are trained on."""
        units = np.unique(domain.units)
        order = np.random.default_rng(_HELD_BACK_SEED).permutation(units)
        held, rest = np.split(order, [max(1, round(HELD_BACK * len(units)))])
        rest = np.random.default_rng(seed).permutation(np.sort(rest))
        train, calibrate = np.split(rest, [int(_TRAINED * len(rest))])
        parts = [
            domain.chosen(np.flatnonzero(np.isin(domain.units, each))) for each in (train, calibrate, held)
        ]
        return cls(*parts)

    @property
    def open(self) -> Domain:
        """All that is not held back."""
        one, two = self.train, self.calibrate
        extra = np.concatenate([one.extra, two.extra]) if len(one.extra) else one.extra
        return Domain(
            np.concatenate([one.inputs, two.inputs]),
            np.concatenate([one.labels, two.labels]),
            np.concatenate([one.units, two.units]),
            extra,
        )


@dataclass(frozen=True)
class SourceTraining:
    """How a source model is trained: Adam, whose rate falls to 0 as a cosine.

    Args:
        density_weight: of the squared error of density maps beside that of the count.
        scaled: what is scaled by the training data.
    """

    epochs: int
    rate: float = 1e-3
    batch: int = 256
    decay: float = 0.0
    density_weight: float = 0.0
    scaled: Literal["inputs and labels", "inputs", "nothing"] = "inputs and labels"


Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
"""Predictions and labels, [N, D] -> the task's error; less is better."""


@dataclass(frozen=True)
class RegressionTask:
    """One of the tasks.

    Args:
        name: of the published model.
        title: the two sides, in a few words.
        recipe: how a site is adapted to by default.
        published: the published recipe, where it is another one.
        load: the data below a root. Raises FileNotFoundError where they are absent.
        metric, metric_name: the error.
        outputs, units, features: as the manifest states them.
        data, licence, credit: of what it learnt from and of the weights.
    """

    name: str
    title: str
    load: Callable[[Path], Domains]
    spec: NetworkSpec
    training: SourceTraining
    recipe: Recipe
    metric: Metric
    metric_name: str
    outputs: tuple[str, ...]
    units: tuple[str, ...]
    features: tuple[str, ...]
    data: tuple[DataSource, ...]
    licence: str
    credit: str = ""
    published: Recipe | None = None


def mean_square_error(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Mean over rows of the squared distance."""
    return float(((found - wanted) ** 2).sum(1).mean())
