"""What travels with a source model: when it is sure of itself, and how large its errors are when it is not.

Three numbers, made of predictions, uncertainties and labels of source data that the model was not trained on;
none of those data is among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Calibration", "calibrate"]

#: Share of the source data that the model is sure of (eta).
SURE_SHARE: Final = 0.9
#: Segments of equal size into which the data are cut for the line of the errors (q).
SEGMENTS: Final = 40
_LEAST_SEGMENT: Final = 20


@dataclass(frozen=True)
class Calibration:
    """The threshold tau and the error model Q_s (specification, sections 2 and 3).

    Args:
        threshold: an uncertainty up to this one is confident; in squared units of the label.
        intercept, slope: the label's standard deviation around a prediction is intercept + slope u.

    Raises ValueError for numbers that are not finite, or a threshold that is not above 0.
    """

    threshold: float
    intercept: float
    slope: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.threshold, self.intercept, self.slope]).all() or self.threshold <= 0:
            raise ValueError("a calibration is three finite numbers, the threshold above 0")

    def confident(self, uncertainty: ArrayLike) -> NDArray[np.bool_]:
        """Whether each uncertainty is at or below the threshold."""
        return np.asarray(uncertainty) <= self.threshold

    def deviation(self, uncertainty: ArrayLike, largest: float = np.inf) -> NDArray[np.float64]:
        """Q_s(u), at least a millionth of the intercept's size and at most ``largest``."""
        least = 1e-6 * max(abs(self.intercept), 1e-6)
        found = self.intercept + self.slope * np.asarray(uncertainty, dtype=np.float64)
        return np.clip(found, least, max(largest, least))

    def to_facts(self) -> dict[str, float]:
        """For a manifest."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Calibration:
        """From a manifest. Raises ValueError, KeyError or TypeError for what is none."""
        return cls(*(float(facts[name]) for name in ("threshold", "intercept", "slope")))


def calibrate(
    predictions: ArrayLike,
    uncertainty: ArrayLike,
    labels: ArrayLike,
    *,
    sure_share: float = SURE_SHARE,
    segments: int = SEGMENTS,
) -> Calibration:
    """Fit on source data that the model was not trained on.

    Args:
        predictions, labels: [N] or [N, D], in the label's units.
        uncertainty: [N].
        sure_share: of the data that are confident.
        segments: at most, of at least twenty data each, of the sorted uncertainties, whose root mean square
            errors a line is fitted to by least squares; with vectors, the error of an axis.

    Raises ValueError for fewer data than two such segments.
    """
    found, wanted = (np.asarray(each, dtype=np.float64) for each in (predictions, labels))
    doubt = np.asarray(uncertainty, dtype=np.float64)
    segments = min(segments, len(doubt) // _LEAST_SEGMENT)
    if segments < 2:
        raise ValueError(f"{len(doubt)} data are too few: {2 * _LEAST_SEGMENT} are needed")
    squared = (found - wanted) ** 2
    if squared.ndim == 2:
        squared = squared.mean(1)
    order = np.argsort(doubt, kind="stable")
    parts = np.array_split(order, segments)
    centres = np.array([doubt[part].mean() for part in parts])
    errors = np.array([np.sqrt(squared[part].mean()) for part in parts])
    if np.ptp(centres) == 0:
        slope, intercept = 0.0, float(errors.mean())
    else:
        slope, intercept = (float(each) for each in np.polyfit(centres, errors, 1))
    return Calibration(float(np.quantile(doubt, sure_share)), intercept, slope)
