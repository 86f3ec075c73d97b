"""Boxes that a network scores for many classes, thinned out by non-maximum suppression."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

CANDIDATES: Final = 400
"""The best pairs of place and class of one image; only these are compared with each other."""
LEAST: Final = 0.01
"""Scores below it count as nothing."""
OVERLAP: Final = 0.6
"""Intersection over union above which the lesser of two boxes of one class goes."""


def best_boxes(boxes: Array, scores: Array, most: int) -> tuple[Array, Array, Array]:
    """What stays of one image's boxes, best first: boxes (K, 4), scores (K,) and classes (K,), K <= most.

    Args:
        boxes: (A, 4), corners x1, y1, x2, y2 of every place.
        scores: (A, C) of every place and class. One that is not a number counts as nothing.
        most: how many may stay.
    """
    flat = scores.reshape(-1)
    chosen = np.flatnonzero(flat >= LEAST)
    if len(chosen) > CANDIDATES:
        # Ties go to the lower index, so that the choice does not depend on how it is made.
        chosen = chosen[np.argsort(-flat[chosen], kind="stable")[:CANDIDATES]]
    places, classes = np.divmod(chosen, scores.shape[1])
    found, values = boxes[places], flat[chosen]
    kept = suppress(found, values, classes, OVERLAP, most)
    return found[kept], values[kept], classes[kept]


def suppress(boxes: Array, scores: Array, classes: Array, overlap: float, most: int | None = None) -> Array:
    """Indices of the boxes that stay, best first; of equal scores the lower index first.

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2.
        scores: (N,).
        classes: (N,), integers: boxes of different classes never suppress each other.
        overlap: intersection over union above which the lesser of two boxes goes, 0..1.
        most: how many may stay at most; all of them if None.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes[order].astype(np.float64), classes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    alive = np.ones(len(order), dtype=bool)
    kept: list[int] = []
    for index in range(len(order)):
        if not alive[index]:
            continue
        kept.append(index)
        if most is not None and len(kept) >= most:
            break
        rest = np.flatnonzero(alive[index + 1 :] & (classes[index + 1 :] == classes[index])) + index + 1
        low = np.maximum(boxes[rest, :2], boxes[index, :2])
        high = np.minimum(boxes[rest, 2:], boxes[index, 2:])
        both = (high - low).clip(0).prod(1)
        union = areas[rest] + areas[index] - both
        alive[rest[both > overlap * np.maximum(union, 1e-12)]] = False
    return order[kept]
