"""Intersection over union as the official evaluator computes it, for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["overlaps", "to_corners"]

_LEAST_UNION: Final = np.float32(1e-6)

Box = tuple[float, float, float, float]


def to_corners(box: Sequence[float]) -> Box:
    """x, y, width, height -> x1, y1, x2, y2."""
    x, y, width, height = box
    return x, y, x + width, y + height


def overlaps(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """IoU float32 [N] of N pairs of boxes given by their corners.

    Continuous coordinates, signed areas, no clipping, no sorting of corners, the union at least 1e-6, all in
    float32 (specification, section 3.1): a box whose corners are both swapped has an area but no
    intersection.
    """
    one, two = (np.asarray(each, dtype=np.float32).reshape(-1, 4) for each in (ours, theirs))
    sides = np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2])
    sides = np.maximum(sides, np.float32(0))
    inter = sides[:, 0] * sides[:, 1]
    areas = [(each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (one, two)]
    union = areas[0] + areas[1] - inter
    ratios: NDArray[np.float32] = inter / np.maximum(union, _LEAST_UNION)
    return ratios
