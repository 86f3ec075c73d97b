"""An exact, small GenEval: reads the shapes off a 64 x 64 picture and says whether a prompt was obeyed.

The detector is made of rules, not learnt: strong colours are separated from the grey background and from each
other, connected areas of one colour are things, and a thing's shape is the one that, drawn in its box, it
overlaps with most. It reads every drawn scene back exactly; on generated pictures it is as strict as GenEval.

Source: the categories and their rules are those of GenEval (arXiv 2310.11513); its score is the mean of the
categories' shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nonet.research.snapgen.scenes import (
    CATEGORIES,
    COLOURS,
    SHAPES,
    SIZES,
    Prompt,
    Wanted,
    in_relation,
    prompt_of,
    shape_mask,
)

STRONG = 90
"""Difference of a pixel's largest and smallest channel from which on it belongs to a thing."""

SMALLEST = 16
"""Pixels of the smallest area that is a thing; smaller ones are specks."""

ALIKE = 0.6
"""Overlap (intersection over union) with the best shape below which an area is of no shape."""

POSITION_MARGIN = 0.25
"""Part of the mean side by which centres must differ for one to be left of another."""


@dataclass(frozen=True)
class Found:
    """A thing in a picture: its shape (None: like none), colour, centre (x, y) and larger side in pixels."""

    shape: str | None
    colour: str
    centre: tuple[float, float]
    side: int


def shape_of(mask: NDArray[np.bool_]) -> str | None:
    """The shape whose drawing, stretched to this box, overlaps most with the mask (h, w)."""
    height, width = mask.shape
    side = max(height, width)
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width

    def overlap(shape: str) -> float:
        drawn = shape_mask(shape, side)[np.ix_(rows, columns)]
        return float((drawn & mask).sum() / (drawn | mask).sum())

    overlaps = {shape: overlap(shape) for shape in SHAPES}
    best = max(SHAPES, key=overlaps.__getitem__)
    return best if overlaps[best] >= ALIKE else None


def detect(picture: NDArray[np.uint8]) -> list[Found]:
    """All things of a picture (H, W, 3) RGB."""
    values = picture.astype(np.int32)
    strong = values.max(axis=2) - values.min(axis=2) >= STRONG
    palette = np.array(list(COLOURS.values()), np.int32)
    nearest = np.square(values[:, :, None] - palette).sum(axis=3).argmin(axis=2)
    found = []
    for number, colour in enumerate(COLOURS):
        areas, _ = ndimage.label(strong & (nearest == number), np.ones((3, 3)))
        for area, box in enumerate(ndimage.find_objects(areas), 1):
            mask = areas[box] == area
            if mask.sum() < SMALLEST:
                continue
            (top, bottom), (left, right) = ((each.start, each.stop) for each in box)
            centre = ((left + right - 1) / 2, (top + bottom - 1) / 2)
            found.append(Found(shape_of(mask), colour, centre, max(bottom - top, right - left)))
    return found


def matching(wanted: Wanted, found: Sequence[Found]) -> list[Found]:
    """The things that are what is wanted, whatever their number."""
    return [
        each
        for each in found
        if each.shape == wanted.shape
        and wanted.colour in (None, each.colour)
        and (wanted.size is None or SIZES[wanted.size][0] - 1 <= each.side <= SIZES[wanted.size][1] + 1)
    ]


def obeyed(prompt: Prompt, found: Sequence[Found]) -> bool:
    """Whether the things are what the prompt asks for. Things it does not name are allowed, but counted
    shapes must be as many as told.
    """
    groups = [matching(wanted, found) for wanted in prompt.wanted]
    for wanted, group in zip(prompt.wanted, groups, strict=True):
        if not group or (wanted.count > 1 and len(group) != wanted.count):
            return False
    if prompt.relation is None:
        return True
    first, second = groups
    return any(
        in_relation(prompt.relation, a.centre, b.centre, POSITION_MARGIN * (a.side + b.side) / 2)
        for a in first
        for b in second
    )


def prompts(each: int, seed: int) -> list[Prompt]:
    """So many prompts of each category, or all different ones if it has fewer; the same for a seed."""
    rng = np.random.default_rng(seed)
    chosen: list[Prompt] = []
    for category in CATEGORIES:
        texts: dict[str, Prompt] = {}
        for _ in range(50 * each):
            prompt = prompt_of(category, rng, exact=True)
            texts.setdefault(prompt.text, prompt)
            if len(texts) == each:
                break
        chosen += texts.values()
    return chosen


def scores(asked: Sequence[Prompt], pictures: Callable[[Prompt], NDArray[np.uint8]]) -> dict[str, float]:
    """Share of obeyed prompts by category, and as `overall` the mean of those."""
    by_category: dict[str, list[bool]] = {}
    for prompt in asked:
        by_category.setdefault(prompt.category, []).append(obeyed(prompt, detect(pictures(prompt))))
    shares = {category: float(np.mean(each)) for category, each in by_category.items()}
    return {**shares, "overall": float(np.mean(list(shares.values())))}
