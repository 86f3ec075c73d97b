"""What a matcher learns from: pictures as regions with names, and expressions that mean one or none."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SEED", "Example", "Floats", "Scene", "overlaps", "part_of"]

Floats = npt.NDArray[np.float32]

#: Of the one split by picture that everything here is trained, chosen and reported by.
SEED = 20261130


@dataclass(frozen=True, eq=False)
class Scene:
    """The regions of one picture.

    Args:
        picture: its name, the same wherever it is met.
        boxes: (N, 4), x1 y1 x2 y2 as fractions of the picture.
        names: (N,) indices of COCO's 80 classes.
        scores: (N,) of the detector, 0..1; ones where people marked them.
        looks: (N, LOOKS) of the pixels, or None without them.
        aspect: width / height of the picture.
        marked: whether the boxes are people's (a detector's faults are put on them) or a detector's.
    """

    picture: str
    boxes: Floats
    names: npt.NDArray[np.int64]
    scores: Floats
    looks: Floats | None
    aspect: float
    marked: bool = True


@dataclass(frozen=True)
class Example:
    """An expression of a scene.

    Args:
        scene: what it is said of.
        expression: the text.
        box: what it means, x1 y1 x2 y2 as fractions; None if nothing there is meant.
        region: index of the marked box that is meant; -1 where the boxes are a detector's.
        origin: "human", or "template" with its rule.
    """

    scene: Scene
    expression: str
    box: tuple[float, float, float, float] | None
    region: int = -1
    origin: str = "human"


def overlaps(boxes: Floats, box: Iterable[float]) -> npt.NDArray[np.float64]:
    """Intersection over union (N,) of boxes (N, 4) with one."""
    one = np.asarray(tuple(box), np.float64)
    many = np.asarray(boxes, np.float64)
    low, high = np.maximum(many[:, :2], one[:2]), np.minimum(many[:, 2:], one[2:])
    both = (high - low).clip(0).prod(1)
    areas = (many[:, 2:] - many[:, :2]).clip(0).prod(1)
    union = areas + float((one[2:] - one[:2]).clip(0).prod()) - both
    shares: npt.NDArray[Any] = both / np.maximum(union, 1e-12)
    return shares


def part_of(picture: str) -> str:
    """`train` for 88 % of pictures, `choose` for 6 %, `report` for 6 %; by the picture's name alone."""
    drawn = random.Random(f"{SEED} {picture}").random()
    return "report" if drawn < 0.06 else "choose" if drawn < 0.12 else "train"
