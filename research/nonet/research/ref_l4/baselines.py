"""Grounders without weights: boxes that do not read the text, and one that knows names and places.

The last chooses among given boxes with names: the name that the expression holds, then words of place and
size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nonet.research.ref_l4.overlaps import Box

__all__ = ["NamedBox", "by_name_and_place", "centre", "largest", "whole"]


@dataclass(frozen=True)
class NamedBox:
    """A box with its corners in pixels, and what it shows."""

    name: str
    box: Box

    @property
    def area(self) -> float:
        """Square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def whole(width: float, height: float) -> Box:
    """The whole picture."""
    return 0.0, 0.0, width, height


def centre(width: float, height: float) -> Box:
    """Half of each side, in the middle."""
    return width / 4, height / 4, 3 * width / 4, 3 * height / 4


def largest(boxes: Sequence[NamedBox], width: float, height: float) -> Box:
    """The largest of the boxes; the whole picture if there is none."""
    return max(boxes, key=lambda each: each.area).box if boxes else whole(width, height)


#: Other words for COCO's names.
_SYNONYMS: Final = {
    "person": (
        "man men woman women boy girl guy lady kid child people player batter catcher umpire pitcher baby "
        "skier surfer rider he she him her someone skateboarder snowboarder"
    ),
    "couch": "sofa",
    "tv": "television screen monitor",
    "cell phone": "phone cellphone",
    "dining table": "table",
    "potted plant": "plant",
    "airplane": "plane jet aircraft",
    "motorcycle": "motorbike bike",
    "bicycle": "bike",
    "donut": "doughnut",
    "cow": "bull calf cattle",
    "sheep": "lamb",
    "dog": "puppy",
    "cat": "kitten kitty",
    "suitcase": "luggage bag",
    "handbag": "purse bag",
    "sports ball": "ball",
    "wine glass": "glass",
    "laptop": "computer",
    "refrigerator": "fridge",
    "cup": "mug",
    "car": "vehicle",
    "hot dog": "hotdog",
    "teddy bear": "teddy",
}
_SIDES: Final[tuple[tuple[str, Callable[[NamedBox], float]], ...]] = (
    (r"left ?most|far left|left", lambda each: each.box[0] + each.box[2]),
    (r"right ?most|far right|right", lambda each: -each.box[0] - each.box[2]),
    (r"top ?most|uppermost|highest|top|upper|back(?:ground)?|behind", lambda each: each.box[1] + each.box[3]),
    (
        r"bottom ?most|lowest|bottom|lower|front|foreground|closest|nearest|near",
        lambda each: -each.box[1] - each.box[3],
    ),
    (r"largest|biggest|big|large|huge|tallest", lambda each: -each.area),
    (r"smallest|tiniest|small|little|tiny", lambda each: each.area),
)
_MIDDLE: Final = re.compile(r"\b(?:middle|center|centre|central)\b")


def by_name_and_place(expression: str, boxes: Sequence[NamedBox], width: float, height: float) -> Box:
    """The box that the expression names first, of several the one that its words of place or size choose,
    else the largest."""
    text = expression.lower()
    named = _named(text, boxes)
    found = named or list(boxes)
    if not found:
        return whole(width, height)
    if _MIDDLE.search(text):
        return min(found, key=lambda each: _from_middle(each, width, height)).box
    for words, rank in _SIDES:
        if re.search(rf"\b(?:{words})\b", text):
            return min(found, key=rank).box
    return largest(found, width, height)


def _named(text: str, boxes: Sequence[NamedBox]) -> list[NamedBox]:
    """Those of the name that stands first in the text; of two at the same place the longer."""
    places: dict[str, tuple[int, int]] = {}
    for name in {each.name for each in boxes}:
        words = [name, *_SYNONYMS.get(name, "").split()]
        starts = [
            (match.start(), -len(word))
            for word in words
            if (match := re.search(rf"\b{re.escape(word)}(?:e?s)?\b", text))
        ]
        if starts:
            places[name] = min(starts)
    if not places:
        return []
    first = min(places, key=lambda name: places[name])
    return [each for each in boxes if each.name == first]


def _from_middle(each: NamedBox, width: float, height: float) -> float:
    x1, y1, x2, y2 = each.box
    return float(((x1 + x2 - width) ** 2 + (y1 + y2 - height) ** 2) ** 0.5)
