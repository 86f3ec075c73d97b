"""Labels for a site that has none: uncertain predictions are moved to where confident ones say that labels
lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nonet.research.tasfar.calibration import Calibration
from nonet.research.tasfar.density import DensityMap, density_map, grid_for, mass_of, relative_shares
from nonet.research.tasfar.kernel import kernel_means

__all__ = ["PseudoLabels", "TooFewConfident", "pseudo_labels"]

LocalDensity = Literal["mean", "product"]
"""What the density at an uncertain prediction is: the mean of the map over its cells, or that of the map
times its masses. The published code has both, for different tasks (specification, section 6)."""
Prior = Literal["map", "kernel", "ratio", "agreed"]
"""What a posterior multiplies a prediction's masses by."""

#: Fewer confident predictions than this make no map.
FEWEST_CONFIDENT = 50


class TooFewConfident(ValueError):
    """The model is sure of too little here to say how labels are distributed."""


@dataclass(frozen=True)
class PseudoLabels:
    """Of each input of a site.

    Args:
        labels: [N] or [N, D]; of confident inputs their predictions.
        confident: bool [N].
        credibility: [N], how much each counts in training (beta).
        density: [N], local density of uncertain inputs, 0 for confident ones.
        map: of the labels.
        own_credibility: [N], of the predictions themselves, as if every input were confident.
    """

    labels: NDArray[np.float64]
    confident: NDArray[np.bool_]
    credibility: NDArray[np.float64]
    density: NDArray[np.float64]
    map: DensityMap
    own_credibility: NDArray[np.float64]

    @property
    def uncertain_share(self) -> float:
        """Share 0..1 of inputs that the model is not sure of."""
        return float((~self.confident).mean())


def pseudo_labels(
    predictions: ArrayLike,
    uncertainty: ArrayLike,
    calibration: Calibration,
    width: float,
    *,
    local: LocalDensity = "mean",
    grid_of: Literal["confident", "all"] = "confident",
    prior: Prior = "map",
    source: DensityMap | None = None,
    largest: float = np.inf,
    fewest: int = FEWEST_CONFIDENT,
) -> PseudoLabels:
    """Posterior means over the cells of the density map, and how credible each is (specification, 5 and 6).

    Args:
        predictions: [N] or [N, D], one pass without dropout.
        uncertainty: [N].
        calibration: of the source model.
        width: of the map's cells, in the label's units.
        local: definition of the local density.
        grid_of: the inputs that the grid covers; a few wild uncertain ones would stretch it.
        prior: ``map``, as published; ``kernel``, the same without cells (`kernel_means`); ``ratio``, of the
            site's map to the source's (`relative_shares`); ``agreed``, of the moves by map and by ratio the
            smaller one, none where they differ in direction.
        source: map of where the model comes from, for the last two.
        largest: deviation that counts; a wild uncertainty spreads its label no further.
        fewest: confident inputs that a map needs.

    Raises TooFewConfident, and ValueError for numbers that are not finite.
    """
    found = np.asarray(predictions, dtype=np.float64)
    doubt = np.asarray(uncertainty, dtype=np.float64)
    if not np.isfinite(found).all() or not np.isfinite(doubt).all():
        raise ValueError("predictions and uncertainties must be finite")
    sure = calibration.confident(doubt)
    if int(sure.sum()) < fewest:
        raise TooFewConfident(
            f"of {len(sure)} inputs the model is sure of {int(sure.sum())}; a map needs {fewest}"
        )
    deviation = calibration.deviation(doubt, largest)
    shown = sure if grid_of == "confident" else np.ones_like(sure)
    grid = grid_for(found[shown], deviation[shown], width)
    known = density_map(found[sure], deviation[sure], grid)
    priors = []
    if prior in ("map", "agreed"):
        priors.append(known.shares)
    if prior in ("ratio", "agreed"):
        if source is None:
            raise ValueError("a ratio of maps needs the source's map")
        priors.append(relative_shares(known, source))
    labels, density = found.copy(), np.zeros(len(found))
    for index in np.flatnonzero(~sure):
        mass = mass_of(found[index], float(deviation[index]), grid)
        shares, joint = known.shares[mass.window], mass.joint
        density[index] = float((shares if local == "mean" else shares * joint).mean())
        means = [_posterior_mean(each[mass.window] * joint, mass.window, known) for each in priors]
        labels[index] = _agreed(found[index], [each for each in means if each is not None])
    if prior == "kernel" and not sure.all():
        table = found.reshape(len(found), -1)
        moved = kernel_means(table[~sure], deviation[~sure], table[sure], deviation[sure])
        labels[~sure] = moved.reshape(labels[~sure].shape)
    ratio = np.where(sure, 1.0, density / known.mean)
    own = doubt / calibration.threshold
    return PseudoLabels(labels, sure, ratio * own, density, known, own)


def _posterior_mean(
    product: NDArray[np.float64], window: tuple[slice, ...], known: DensityMap
) -> NDArray[np.float64] | None:
    """Mean [D] over the cells of a window; None where the map has nothing there."""
    total = float(product.sum())
    if not total > 0:
        return None
    means = []
    for axis, part in enumerate(window):
        others = tuple(other for other in range(product.ndim) if other != axis)
        means.append(float((product.sum(others) * known.grid.centres(axis)[part]).sum() / total))
    return np.array(means)


def _agreed(
    prediction: NDArray[np.float64], means: list[NDArray[np.float64]]
) -> NDArray[np.float64] | np.float64:
    """A prediction moved to a posterior mean; along each axis, of two by the smaller move if both have one
    direction."""
    if not means:
        return prediction
    moves = np.array(means) - prediction
    same = np.abs(np.sign(moves).sum(0)) == len(moves)
    moved = prediction + np.where(same, np.sign(moves[0]) * np.abs(moves).min(0), 0.0)
    return moved if np.ndim(prediction) else moved[0]
