"""How the colours of a sensor relate to those of the world, as the file of a capture or LibRaw's tables say.

A model answers one question: which matrix turns camera RGB, white-balanced by given gains, into linear sRGB.
White stays white in every one of them.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

XYZ_OF_SRGB: Final = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
"""Linear sRGB to XYZ, both with white D65 (IEC 61966-2-1)."""
_SMALLEST: Final = 1e-6


class ColourModel(Protocol):
    """See the module's text."""

    def to_srgb(self, gains: tuple[float, float, float]) -> Matrix:
        """Camera RGB times ``gains`` (R, G, B) to linear sRGB, (3, 3), rows summing to 1."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class OneMatrix:
    """One matrix for every light: XYZ (D65) to camera RGB, shape (3, 3). White balance takes the place of an
    adaptation to the light: rows are scaled so that white stays white."""

    matrix: Matrix

    def to_srgb(self, gains: tuple[float, float, float]) -> Matrix:
        """The inverse of the matrix after sRGB, the same for all gains; the identity if it has none."""
        camera = self.matrix @ XYZ_OF_SRGB
        sums = camera.sum(axis=1, keepdims=True)
        if np.abs(sums).min() < _SMALLEST:
            return np.eye(3)
        camera = camera / sums
        if abs(np.linalg.det(camera)) < _SMALLEST:
            return np.eye(3)
        return np.asarray(np.linalg.inv(camera))
