"""Whether an adaptation should be used, judged without labels: what is measured, and what makes it decline.

A site whose labels nobody knows cannot show that a model became better. It can show that the method's
assumptions do not hold there, or that training moved what should have stayed; each of these declines and
says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.tasfar.density import DensityMap, mass_of
from nonet.research.tasfar.pseudo_labels import FEWEST_CONFIDENT, PseudoLabels
from nonet.research.tasfar.version_files import SourceFacts

__all__ = ["Bounds", "Moved", "before_training", "log_likelihood", "map_facts", "measure"]

#: Of the probability in a map's cells, for the logarithm where the map knows nothing.
_LEAST_SHARE: Final = 1e-9
_MOST_MAP_CELLS: Final = 4096


@dataclass(frozen=True)
class Bounds:
    """What an adaptation must keep to.

    Args:
        fewest_rows: distinct inputs of a site.
        fewest_uncertain: inputs that the model is not sure of; without any there is nothing to correct.
        least_sure: share of confident inputs; a map of the few says nothing about the many.
        least_shift: distance (Kolmogorov and Smirnov's) of the predictions from the source's, below which the
            site's map says what the model knows already.
        least_peaks: spread of the confident predictions, in their standard deviations of error: below it
            the map is one peak, which pulls everything to its middle.
        most_change: root mean square change of the confident predictions, in their standard deviations.
        most_drift: change of the mean prediction, in the spread of the predictions.
        most_stretch: factor by which the spread of the predictions may grow or shrink.
    """

    fewest_rows: int = 2 * FEWEST_CONFIDENT
    fewest_uncertain: int = 5
    least_sure: float = 0.3
    least_shift: float = 0.15
    least_peaks: float = 0.5
    most_change: float = 0.5
    most_drift: float = 0.5
    most_stretch: float = 2.0


def before_training(
    inputs: NDArray[np.float32],
    predictions: NDArray[np.float64],
    uncertainty: NDArray[np.float64],
    facts: SourceFacts,
    bounds: Bounds,
) -> tuple[dict[str, Any], list[str]]:
    """What a site's inputs say before anything is trained: figures, and reasons to decline.

    Args:
        inputs: [N, ...].
        predictions, uncertainty: [N, D] and [N], in the network's space.
    """
    sure = facts.calibration.confident(uncertainty)
    distinct = len(np.unique(inputs.reshape(len(inputs), -1), axis=0))
    shifts = [each.distance(column) for each, column in zip(facts.predictions, predictions.T, strict=True)]
    doubt_shift = facts.uncertainty.distance(uncertainty)
    deviation = facts.calibration.deviation(uncertainty)
    figures: dict[str, Any] = {
        "rows": len(inputs),
        "distinct_rows": distinct,
        "confident": int(sure.sum()),
        "uncertain": int((~sure).sum()),
        "shift_of_predictions": round(max(shifts), 4),
        "shift_of_uncertainty": round(doubt_shift, 4),
    }
    reasons = []
    if distinct < bounds.fewest_rows:
        reasons.append(
            f"{distinct} distinct rows are too few to tell how labels lie here: {bounds.fewest_rows} needed"
        )
        return figures, reasons
    if sure.mean() < bounds.least_sure or int(sure.sum()) < FEWEST_CONFIDENT:
        reasons.append(
            f"the model is sure of {sure.mean():.0%} of the rows alone, so that what it is sure of says "
            "nothing about the others; are these the inputs it was made for?"
        )
        return figures, reasons
    peaks = float((predictions[sure].std(0) / deviation[sure].mean()).max())
    figures["spread_of_map"] = round(peaks, 3)
    if peaks < bounds.least_peaks:
        reasons.append(
            "the confident predictions all say nearly the same: the map has one peak and would pull every "
            "prediction to it"
        )
    if facts.calibration.slope <= 0:
        reasons.append(
            "where the model was calibrated its uncertainty said nothing about its errors: it cannot tell "
            "which predictions to correct"
        )
    if int((~sure).sum()) < bounds.fewest_uncertain:
        reasons.append("the model is sure of nearly every row: there is nothing to correct")
    # Two samples of one distribution differ by chance; 1.63 is the value exceeded once in a hundred.
    chance = 1.63 * np.sqrt(1 / facts.uncertainty.count + 1 / len(inputs))
    if max(shifts) < max(bounds.least_shift, chance):
        reasons.append("predictions are distributed as where the model comes from: nothing to adapt to")
    return figures, reasons


@dataclass(frozen=True)
class Moved:
    """What an adaptation did to inputs that it was not trained on, in the network's space.

    Args:
        before, after: predictions [N, D] of the old and the new model.
        uncertainty: [N], the old model's.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    uncertainty: NDArray[np.float64]


def measure(
    moved: Moved, taught: PseudoLabels, facts: SourceFacts, bounds: Bounds
) -> tuple[dict[str, Any], list[str]]:
    """What training did, on inputs held back from it: figures, and reasons to decline."""
    sure = facts.calibration.confident(moved.uncertainty)
    deviation = facts.calibration.deviation(moved.uncertainty)
    change = np.sqrt(((moved.after - moved.before) ** 2).mean(1))
    spread = np.maximum(moved.before.std(0), 1e-12)
    drift = float((np.abs(moved.after.mean(0) - moved.before.mean(0)) / spread).max())
    stretch = moved.after.std(0) / spread
    agreement = float(np.sqrt(((change[sure] / deviation[sure]) ** 2).mean())) if sure.any() else 0.0
    figures: dict[str, Any] = {
        "held_back_rows": len(sure),
        "change_of_confident": round(agreement, 4),
        "drift_of_mean": round(drift, 4),
        "spread_ratio": [round(float(each), 4) for each in stretch],
        "uniform_likelihood": round(-float(np.log(taught.map.grid.cells)), 4),
    }
    reasons = []
    if not np.isfinite(moved.after).all():
        return figures, ["the adapted model gives predictions that are not finite"]
    for name, part in (("confident", sure), ("uncertain", ~sure)):
        if part.any():
            old, new = (
                log_likelihood(each[part], deviation[part], taught.map)
                for each in (moved.before, moved.after)
            )
            figures[f"likelihood_{name}"] = {"before": round(old, 4), "after": round(new, 4)}
            if name == "confident" and old <= figures["uniform_likelihood"]:
                reasons.append("the map does not fit confident predictions that it was not made of")
            if name == "uncertain" and new < old - 0.01 * abs(old):
                reasons.append("uncertain predictions moved away from where labels lie here")
    if agreement > bounds.most_change:
        reasons.append(
            f"confident predictions changed by {agreement:.2f} of their standard deviation; "
            f"at most {bounds.most_change:g} is allowed"
        )
    if drift > bounds.most_drift:
        reasons.append(
            f"the mean prediction moved by {drift:.2f} of the predictions' spread; "
            f"at most {bounds.most_drift:g} is allowed"
        )
    if stretch.max() > bounds.most_stretch or stretch.min() < 1 / bounds.most_stretch:
        reasons.append("the spread of the predictions grew or shrank by more than is allowed")
    return figures, reasons


def log_likelihood(
    predictions: NDArray[np.float64], deviations: NDArray[np.float64], known: DensityMap
) -> float:
    """Mean logarithm of the share of a map's labels at predictions [N, D] spread by their deviations [N]."""
    found = []
    for row, deviation in zip(predictions, deviations, strict=True):
        mass = mass_of(row, float(deviation), known.grid)
        found.append(np.log(max(float((known.shares[mass.window] * mass.joint).sum()), _LEAST_SHARE)))
    return float(np.mean(found))


def map_facts(known: DensityMap) -> dict[str, Any]:
    """A map to draw: the grid in the network's space, and the shares row by row. A larger one than a page
    draws is given by its margins."""
    facts = {**asdict(known.grid)}
    if known.grid.cells <= _MOST_MAP_CELLS:
        return {**facts, "shares": np.round(known.shares, 6).tolist()}
    axes = range(known.shares.ndim)
    margins = [known.shares.sum(tuple(other for other in axes if other != axis)) for axis in axes]
    return {**facts, "margins": [np.round(each, 6).tolist() for each in margins]}
