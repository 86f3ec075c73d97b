"""What a detector makes of marked boxes: moved, missed, doubled, misnamed, and some where nothing is.

A matcher that has only seen people's boxes trusts every one of them. Two detectors are imitated, one of
YOLOX-Nano's kind and one far weaker, and none at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nonet.research.grounding.scenes import Floats

__all__ = ["FAULTS", "Detected", "Faults", "detect"]


@dataclass(frozen=True)
class Faults:
    """How often and how far a detector is wrong.

    Args:
        shift: standard deviation of a corner, as a share of the side.
        missed: share of the other objects that are not found.
        misnamed: share of names that are wrong.
        doubled: share of objects found twice.
        invented: mean number of boxes where nothing is.
        score: of the beta distribution of a right box's score.
    """

    shift: float
    missed: float
    misnamed: float
    doubled: float
    invented: float
    score: tuple[float, float]


FAULTS = {
    "none": Faults(0.0, 0.0, 0.0, 0.0, 0.0, (50.0, 1.0)),
    "good": Faults(0.05, 0.12, 0.05, 0.08, 2.0, (4.0, 2.0)),
    "weak": Faults(0.10, 0.25, 0.25, 0.35, 8.0, (2.0, 4.0)),
}


@dataclass(frozen=True, eq=False)
class Detected:
    """Regions as a detector gives them; ``origin`` (N,) says which marked box each is, -1 none."""

    boxes: Floats
    names: npt.NDArray[np.int64]
    scores: Floats
    origin: npt.NDArray[np.int64]


def detect(
    boxes: Floats,
    names: npt.NDArray[np.int64],
    keep: int,
    faults: Faults,
    pool: tuple[Floats, npt.NDArray[np.int64]],
    forbidden: npt.NDArray[np.bool_],
    draw: np.random.Generator,
) -> Detected:
    """Marked boxes (N, 4), fractions, as a detector with faults finds them.

    Args:
        keep: the one that is never missed; -1 if any may be.
        pool: boxes and names of real objects, from which invented ones are drawn.
        forbidden: (80,) classes that no invented or wrong name may have.
    """
    found = draw.random(len(boxes)) >= faults.missed
    if keep >= 0:
        found[keep] = True
    origin = np.flatnonzero(found)
    doubled = origin[draw.random(len(origin)) < faults.doubled]
    moved = _moved(boxes[origin], faults.shift, draw)
    again = _moved(boxes[doubled], 2 * faults.shift, draw)
    invented = int(draw.poisson(faults.invented))
    drawn = draw.integers(0, len(pool[0]), 3 * invented)
    drawn = drawn[~forbidden[pool[1][drawn]]][:invented]
    others = _moved(pool[0][drawn], 0.1, draw)
    wrong_names = names[origin].copy()
    wrong = draw.random(len(origin)) < faults.misnamed
    allowed = np.flatnonzero(~forbidden)
    if len(allowed):
        wrong_names[wrong] = draw.choice(allowed, int(wrong.sum()))
    alpha, beta = faults.score
    right = draw.beta(alpha, beta, len(origin))
    return Detected(
        np.concatenate([moved, again, others]).astype(np.float32),
        np.concatenate([wrong_names, names[doubled], pool[1][drawn]]),
        np.concatenate(
            [right, draw.beta(alpha, beta, len(doubled)) * 0.6, draw.beta(1.2, 5, len(drawn)) * 0.8]
        ).astype(np.float32),
        np.concatenate([origin, doubled, np.full(len(drawn), -1)]),
    )


def _moved(boxes: Floats, shift: float, draw: np.random.Generator) -> Floats:
    """Boxes whose corners went astray, in order and inside the picture."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    astray = boxes + draw.normal(size=boxes.shape) * shift * sides
    low, high = np.minimum(astray[:, :2], astray[:, 2:]), np.maximum(astray[:, :2], astray[:, 2:])
    moved: Floats = np.concatenate([low, high], axis=1).clip(0, 1).astype(np.float32)
    return moved
