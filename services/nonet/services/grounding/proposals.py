"""Detections of a picture, and of views of it, merged into the regions that expressions choose among."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from nonet.runtime.boxes import suppress
from nonet.runtime.tensors import Array

__all__ = ["Detections", "merged", "of_mirror", "of_tile"]

_OVERLAP: Final = 0.6
"""Intersection over union above which the lesser of two boxes of one class, from different views, goes."""
_EDGE: Final = 0.01
"""Share of a tile's side: a box that comes this close to a cut shows a part of an object."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes (K, 4) in pixels of the picture, best first, their scores (K,) and labels (K)."""

    boxes: Array
    scores: Array
    labels: Sequence[str]

    def select(self, rows: Array) -> Detections:
        """Those of the rows, in their order."""
        return Detections(self.boxes[rows], self.scores[rows], [self.labels[row] for row in rows.tolist()])


def of_mirror(found: Detections, width: float) -> Detections:
    """Detections of a picture that was mirrored left to right, in the picture."""
    x1, y1, x2, y2 = found.boxes.T
    return dataclasses.replace(found, boxes=np.stack((width - x2, y1, width - x1, y2), 1))


def of_tile(
    found: Detections, tile: tuple[float, float], frame: Array, picture: tuple[float, float]
) -> Detections:
    """Detections of a tile, in the picture; those that the tile cuts off are left out.

    Args:
        found: in pixels of the tile.
        tile: its width and height in pixels.
        frame: (4,), what it shows of the picture, in the picture's pixels.
        picture: width and height of the picture.
    """
    scale = np.tile((frame[2:] - frame[:2]) / np.asarray(tile, np.float64), 2)
    boxes = found.boxes * scale + np.tile(frame[:2], 2)
    near = _EDGE * (frame[2:] - frame[:2])
    cut = np.zeros(len(boxes), bool)
    for axis in (0, 1):
        if frame[axis] > 0:
            cut |= boxes[:, axis] < frame[axis] + near[axis]
        if frame[axis + 2] < picture[axis] - 0.5:
            cut |= boxes[:, axis + 2] > frame[axis + 2] - near[axis]
    return dataclasses.replace(found, boxes=boxes).select(np.flatnonzero(~cut))


def merged(parts: Sequence[Detections], most: int) -> Detections:
    """The best of all, at most ``most``: of boxes of one class that lie upon each other the better stays."""
    boxes = np.concatenate([part.boxes.reshape(-1, 4) for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    labels = [label for part in parts for label in part.labels]
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    classes = np.array([known[label] for label in labels], np.int64)
    kept = suppress(boxes, scores, classes, _OVERLAP, most)
    return Detections(boxes, scores, labels).select(kept)
