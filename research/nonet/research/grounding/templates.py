"""Phrases made by rule about marked boxes, only where they are right by a clear margin.

They teach what RefCOCO's people rarely say or say without care: order from a side, relations between two
named things, corners, sizes, what is not. The wording is ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np

from nonet.research.grounding.scenes import Example, Floats, Scene

__all__ = ["phrases"]

_FEWEST_AREA = 0.002  # of the picture; smaller things are no fair question
_ORDER = ("first", "second", "third", "fourth")
_SIDE = {
    "left": (
        "left {n}",
        "the {n} on the left",
        "leftmost {n}",
        "{n} on the far left",
        "the {n} on the left side",
    ),
    "right": (
        "right {n}",
        "the {n} on the right",
        "rightmost {n}",
        "{n} on the far right",
        "{n} to the right",
    ),
    "top": ("top {n}", "the {n} at the top", "the upper {n}", "topmost {n}", "the highest {n}"),
    "bottom": ("bottom {n}", "the {n} at the bottom", "the lower {n}", "bottommost {n}", "lowest {n}"),
    "large": ("the biggest {n}", "largest {n}", "the big {n}", "the large {n}"),
    "small": ("the smallest {n}", "small {n}", "the little {n}", "tiniest {n}"),
    "near": ("the closest {n}", "{n} in front", "the nearest {n}", "the {n} closest to the camera"),
    "far": ("the {n} in the back", "farthest {n}", "the {n} in the background", "the {n} farthest away"),
    "tall": ("the tallest {n}", "tall {n}"),
    "middle": ("middle {n}", "the {n} in the middle", "the center {n}"),
}
_RELATED = {
    "left": ("{n} to the left of the {m}", "the {n} left of the {m}"),
    "right": ("{n} to the right of the {m}", "the {n} right of the {m}"),
    "above": ("{n} above the {m}", "the {n} over the {m}"),
    "below": ("{n} below the {m}", "the {n} under the {m}", "the {n} beneath the {m}"),
    "near": ("{n} next to the {m}", "the {n} near the {m}", "{n} closest to the {m}", "the {n} by the {m}"),
    "not near": ("the {n} not near the {m}", "the {n} farthest from the {m}", "the {n} away from the {m}"),
}


def phrases(scene: Scene, classes: list[str], draw: random.Random) -> Iterator[Example]:
    """Examples for a scene with marked boxes, in every kind that it has material for."""
    boxes = scene.boxes
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    groups: dict[int, list[int]] = {}
    for index, name in enumerate(scene.names.tolist()):
        groups.setdefault(name, []).append(index)
    for name, group in groups.items():
        word = classes[name]
        told = [index for index in group if areas[index] >= _FEWEST_AREA]
        if not told:
            continue
        for index, rule, text in _about(boxes, group, word, draw, len(groups)):
            if areas[index] >= _FEWEST_AREA:
                yield _example(scene, index, rule, text)
        for other, others in groups.items():
            if other != name and len(others) == 1 and areas[others[0]] >= _FEWEST_AREA and len(group) > 1:
                for index, rule, form in _beside(boxes, group, others[0], scene.aspect, draw):
                    if areas[index] >= _FEWEST_AREA:
                        yield _example(scene, index, rule, form.format(n=word, m=classes[other]))


def _example(scene: Scene, index: int, rule: str, text: str) -> Example:
    x1, y1, x2, y2 = scene.boxes[index].tolist()
    return Example(scene, text, (x1, y1, x2, y2), index, f"template {rule}")


def _about(
    boxes: Floats, group: list[int], word: str, draw: random.Random, kinds: int
) -> Iterator[tuple[int, str, str]]:
    """(Box, rule, text) that need one class alone."""
    if len(group) == 1:
        forms = ("the {n}", "{n}", "a {n}", "the only {n}")
        yield group[0], "category", draw.choice(forms).format(n=word)
        return
    own = boxes[group]
    x, y = own[:, [0, 2]].mean(1), own[:, [1, 3]].mean(1)
    size = own[:, 2:] - own[:, :2]
    area, height = size.prod(1), size[:, 1]
    measures: dict[str, tuple[Floats, float]] = {
        "left": (x, 0.06),
        "right": (-x, 0.06),
        "top": (y, 0.08),
        "bottom": (-y, 0.08),
        "large": (-np.log(area + 1e-6), 0.35),
        "small": (np.log(area + 1e-6), 0.35),
        "near": (-np.log(area + 1e-6) - 2 * own[:, 3], 0.6),
        "far": (np.log(area + 1e-6) + 2 * own[:, 3], 0.6),
        "tall": (-np.log(height + 1e-6), 0.3),
    }
    for rule, (values, margin) in measures.items():
        order = np.argsort(values)
        if values[order[1]] - values[order[0]] > margin:
            yield group[order[0]], rule, draw.choice(_SIDE[rule]).format(n=word)
            if len(group) == 2 and rule in ("left", "right", "large", "near") and draw.random() < 0.3:
                side = {
                    "left": "on the left",
                    "right": "on the right",
                    "large": "the biggest",
                    "near": "in front",
                }
                yield group[order[1]], "not", f"the {word} that is not {side[rule]}"
    yield from _in_order(x, group, word, draw)
    yield from _corners(x, y, group, word, draw)


def _in_order(x: Floats, group: list[int], word: str, draw: random.Random) -> Iterator[tuple[int, str, str]]:
    order = np.argsort(x)
    if not 3 <= len(group) <= 8 or np.diff(x[order]).min() < 0.03:
        return
    if len(group) % 2 and len(group) <= 5:
        yield group[order[len(group) // 2]], "middle", draw.choice(_SIDE["middle"]).format(n=word)
    place = draw.randrange(1, min(len(group), 4))
    yield group[order[place]], "order", f"{draw.choice(('', 'the '))}{_ORDER[place]} {word} from the left"
    place = draw.randrange(1, min(len(group), 4))
    yield (
        group[order[-1 - place]],
        "order",
        f"{draw.choice(('', 'the '))}{_ORDER[place]} {word} from the right",
    )


def _corners(
    x: Floats, y: Floats, group: list[int], word: str, draw: random.Random
) -> Iterator[tuple[int, str, str]]:
    across, down = draw.choice(("left", "right")), draw.choice(("top", "bottom"))
    away = np.hypot(x - (across == "right"), y - (down == "bottom"))
    order = np.argsort(away)
    if away[order[1]] - away[order[0]] > 0.12 and away[order[0]] < 0.6:
        forms = (
            f"{down} {across} {word}",
            f"{word} in the {down} {across} corner",
            f"{across} {down} {word}",
        )
        yield group[order[0]], "corner", draw.choice(forms)


def _beside(
    boxes: Floats, group: list[int], other: int, aspect: float, draw: random.Random
) -> Iterator[tuple[int, str, str]]:
    """(Box, rule, form) that relate a class to the one box of another."""
    own, there = boxes[group], boxes[other]
    centre = (there[:2] + there[2:]) / 2
    x, y = own[:, [0, 2]].mean(1) - centre[0], own[:, [1, 3]].mean(1) - centre[1]
    gap = np.maximum(np.maximum(own[:, :2] - there[2:], there[:2] - own[:, 2:]), 0)
    away = np.hypot(gap[:, 0] * aspect, gap[:, 1]) + 0.3 * np.hypot(x * aspect, y)
    sides: dict[str, Callable[[], Floats]] = {
        "left": lambda: (x < -0.08) & (np.abs(y) < 0.25),
        "right": lambda: (x > 0.08) & (np.abs(y) < 0.25),
        "above": lambda: (y < -0.12) & (np.abs(x) < 0.15),
        "below": lambda: (y > 0.12) & (np.abs(x) < 0.15),
    }
    clear = {"left": x > 0.02, "right": x < -0.02, "above": y > 0.02, "below": y < -0.02}
    for side, holds in sides.items():
        found = np.flatnonzero(holds())
        if len(found) == 1 and clear[side].sum() == len(group) - 1:
            yield group[found[0]], f"relation {side}", draw.choice(_RELATED[side])
    order = np.argsort(away)
    if away[order[1]] - away[order[0]] > 0.1 and away[order[0]] < 0.2:
        yield group[order[0]], "relation near", draw.choice(_RELATED["near"])
        if len(group) == 2:
            yield group[order[1]], "relation not near", draw.choice(_RELATED["not near"])
