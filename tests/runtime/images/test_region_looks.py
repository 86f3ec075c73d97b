"""Regions of a picture by named colours: known colours get their names, wherever the region lies."""

from __future__ import annotations

import numpy as np
import pytest

from nonet.runtime.images.regions import COLOURS, LOOKS, PARTS, looks_of

NAMED = {
    "black": (10, 12, 8),
    "white": (250, 248, 251),
    "grey": (128, 130, 127),
    "red": (200, 20, 25),
    "orange": (250, 130, 10),
    "yellow": (240, 220, 30),
    "green": (30, 150, 50),
    "blue": (30, 60, 200),
    "purple": (120, 30, 160),
    "pink": (250, 110, 190),
    "brown": (110, 65, 30),
    "tan": (220, 180, 140),
}


def share(looks: np.ndarray, colour: str, part: str = "whole") -> float:
    return float(looks[PARTS.index(part) * len(COLOURS) + COLOURS.index(colour)])


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_region_is_all_of_its_colour(colour: str) -> None:
    pixels = np.full((40, 60, 3), NAMED[colour], np.uint8)
    (looks,) = looks_of(pixels, [[0.1, 0.1, 0.9, 0.8]])
    assert all(share(looks, colour, part) == 1.0 for part in PARTS)


def test_parts_are_told_apart() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:50], pixels[50:] = NAMED["red"], NAMED["blue"]
    pixels[25:75, 25:75] = NAMED["yellow"]
    (looks,) = looks_of(pixels, [[0, 0, 1, 1]])
    assert share(looks, "yellow", "middle") == 1.0
    assert share(looks, "blue", "top") == share(looks, "red", "bottom") == 0.0
    assert share(looks, "red", "top") == pytest.approx(0.75)
    assert share(looks, "yellow") == pytest.approx(0.25)


def test_a_region_looks_the_same_beside_any_others() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (333, 517, 3), dtype=np.uint8)
    boxes = np.sort(random.random((64, 2, 2)), axis=1).reshape(64, 4)
    together = looks_of(pixels, boxes)
    assert together.shape == (64, LOOKS)
    assert together.min() >= 0
    assert together.max() <= 1
    for row in range(0, 64, 9):
        assert looks_of(pixels, boxes[row]).tobytes() == together[row : row + 1].tobytes()


@pytest.mark.parametrize(
    "box", [(0.5, 0.5, 0.5, 0.5), (-3, -2, 9, 7), (1, 1, 1, 1), (float("nan"), 0, float("inf"), 1)]
)
def test_boxes_without_area_and_outside_are_taken(box: tuple[float, ...]) -> None:
    looks = looks_of(np.full((7, 3, 3), NAMED["green"], np.uint8), [box])
    assert share(looks[0], "green") == 1.0


def test_no_regions_have_no_looks() -> None:
    assert looks_of(np.zeros((1, 1, 3), np.uint8), np.zeros((0, 4))).shape == (0, LOOKS)
