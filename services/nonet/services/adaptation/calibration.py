"""When a regressor is unsure of an answer, and how large its errors are: the numbers of ``calibration.json``.

They come with a version and hold no row of the data they were made of: a threshold of the uncertainty, a line
from uncertainty to error (TASFAR, arXiv 2312.00540, section IV), and whether both are of the labels or of
log(1 + label).
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Final

import numpy as np

from nonet.runtime.errors import ModelRefused
from nonet.runtime.tensors import Array

__all__ = ["Calibration", "read_calibration"]

_SPACES: Final = ("linear", "log1p")
_NUMBERS: Final = ("threshold", "intercept", "slope")


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """See the module's text.

    Args:
        threshold: an uncertainty (a variance, in squared units) above it is unsure.
        intercept, slope: the error's standard deviation is intercept + slope * uncertainty.
        space: ``linear`` or ``log1p``.
    """

    threshold: float
    intercept: float
    slope: float
    space: str = "linear"

    def confident(self, value: Array, std: Array) -> Array:
        """BOOL [N] of values and standard deviations [N, D]."""
        found: Array = self._uncertainty(value, std) <= self.threshold
        return found

    def error(self, value: Array, std: Array) -> Array:
        """The standard deviation FP32 [N, D] of the label around each value, in its units."""
        line = self.intercept + self.slope * self._uncertainty(value, std)
        deviation = np.maximum(line, 1e-6 * max(abs(self.intercept), 1e-6))[:, None]
        if self.space == "log1p":
            deviation = deviation * self._scale(value)
        return np.broadcast_to(deviation, value.shape).astype(np.float32)

    def _uncertainty(self, value: Array, std: Array) -> Array:
        """FP64 [N]: the variance summed over the outputs; of log(1 + label), to first order."""
        relative = std.astype(np.float64)
        if self.space == "log1p":
            relative = relative / self._scale(value)
        found: Array = np.square(relative).sum(axis=1)
        return found

    @staticmethod
    def _scale(value: Array) -> Array:
        found: Array = 1.0 + np.maximum(value.astype(np.float64), -0.999)
        return found


def read_calibration(content: bytes) -> Calibration:
    """The numbers of a file. Raises ModelRefused for what holds none."""
    try:
        facts: Any = json.loads(content)
        numbers = [float(facts["calibration"][name]) for name in _NUMBERS]
        space = facts.get("space", "linear")
    except (ValueError, KeyError, TypeError, AttributeError):
        numbers, space = [], ""
    if space not in _SPACES or not all(map(math.isfinite, numbers)) or not numbers or numbers[0] < 0:
        raise ModelRefused(
            "calibration.json must have 'calibration' with the numbers threshold, intercept and slope"
        )
    threshold, intercept, slope = numbers
    return Calibration(threshold, intercept, slope, space)
