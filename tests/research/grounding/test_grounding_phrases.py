"""Phrases by rule are true of the box that they are made about, and of no other."""

from __future__ import annotations

import random
import re

import numpy as np

from nonet.research.grounding.scenes import Scene, part_of
from nonet.research.grounding.templates import phrases

CLASSES = ["dog", "cup", "laptop"]


def scene(rows: list[tuple[int, float, float, float, float]]) -> Scene:
    boxes = np.array([row[1:] for row in rows], np.float32)
    names = np.array([row[0] for row in rows])
    return Scene("made up", boxes, names, np.ones(len(rows), np.float32), None, 1.0)


def told(of: Scene) -> dict[str, set[int]]:
    """Every text that is ever made, and the boxes it was made about."""
    found: dict[str, set[int]] = {}
    for seed in range(40):
        for each in phrases(of, CLASSES, random.Random(seed)):
            found.setdefault(each.expression, set()).add(each.region)
            assert each.box == tuple(of.boxes[each.region].tolist())
    return found


def test_order_sides_and_sizes() -> None:
    row = scene([(0, 0.5, 0.3, 0.65, 0.6), (0, 0.05, 0.3, 0.2, 0.6), (0, 0.8, 0.1, 1, 0.9)])
    texts = told(row)
    assert all(len(boxes) == 1 for boxes in texts.values())
    assert texts["leftmost dog"] == texts["the dog on the left"] == {1}
    assert texts["second dog from the left"] == texts["middle dog"] == {0}
    assert texts["third dog from the right"] == {1}
    assert texts["third dog from the left"] == {2}
    assert texts["the biggest dog"] == texts["rightmost dog"] == {2}


def test_no_phrase_without_a_clear_margin() -> None:
    twins = scene([(0, 0.1, 0.1, 0.4, 0.4), (0, 0.12, 0.11, 0.41, 0.42)])
    assert told(twins) == {}


def test_relations_to_the_one_thing_of_another_name() -> None:
    table = scene([(1, 0.1, 0.4, 0.2, 0.6), (1, 0.8, 0.4, 0.9, 0.6), (2, 0.25, 0.35, 0.5, 0.65)])
    texts = told(table)
    assert texts["cup to the left of the laptop"] == {0}
    assert texts["cup to the right of the laptop"] == {1}
    assert texts["cup next to the laptop"] == {0}
    assert texts["the cup not near the laptop"] == {1}


def test_one_of_its_name_needs_no_more_than_its_name() -> None:
    texts = told(scene([(2, 0.2, 0.2, 0.6, 0.6)]))
    assert set(texts) == {"the laptop", "laptop", "a laptop", "the only laptop"}


def test_a_picture_belongs_to_one_part_for_good() -> None:
    parts = [part_of(f"coco {number}") for number in range(4000)]
    assert parts == [part_of(f"coco {number}") for number in range(4000)]
    assert 0.04 < parts.count("report") / 4000 < 0.08
    assert 0.04 < parts.count("choose") / 4000 < 0.08
    assert not any(re.search("^(?!train|choose|report)", part) for part in parts)
