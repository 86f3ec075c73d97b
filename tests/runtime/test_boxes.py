"""Which of a network's boxes stay: against a slow account of the same rule, and with thousands of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.runtime.boxes import CANDIDATES, OVERLAP, best_boxes, suppress


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (a, b)]
    return both / (sum(areas) - both) if both else 0.0


def slowly(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, limit: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda each: (-scores[each], each)):
        rivals = (each for each in kept if classes[each] == classes[index])
        if all(overlap(boxes[index], boxes[each]) <= limit for each in rivals):
            kept.append(index)
    return kept


@st.composite
def scored_boxes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 25))
    whole = st.integers(0, 12)
    corners = draw(st.lists(st.tuples(whole, whole, whole, whole), min_size=count, max_size=count))
    boxes = np.array(corners, dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2] + 1
    scores = (
        np.array(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), dtype=np.float32) / 10
    )
    classes = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), dtype=np.int64)
    return boxes, scores, classes


@given(scored_boxes(), st.sampled_from([0.0, 0.25, 0.6, 1.0]))
@settings(max_examples=150)
def test_the_fast_way_keeps_what_the_slow_way_keeps(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], limit: float
) -> None:
    boxes, scores, classes = drawn
    expected = slowly(boxes.astype(np.float64), scores, classes, limit)
    assert suppress(boxes, scores, classes, limit).tolist() == expected
    assert suppress(boxes, scores, classes, limit, 3).tolist() == expected[:3]


def test_boxes_of_other_classes_and_boxes_apart_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [50, 50, 60, 60]], dtype=np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.8, 0.1]), np.array([0, 0, 1, 0]), OVERLAP)
    assert kept.tolist() == [1, 2, 3]


def test_a_box_without_area_suppresses_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], dtype=np.float32)
    assert len(suppress(boxes, np.array([0.5, 0.5]), np.array([0, 0]), 0.5)) == 2


def test_what_is_not_a_number_or_hardly_scored_is_nothing() -> None:
    boxes = np.tile(np.array([[0, 0, 4, 4]], dtype=np.float32), (3, 1))
    scores = np.array([[np.nan, 0.009], [0.5, np.nan], [0.4, 0.2]], dtype=np.float32)
    found, values, classes = best_boxes(boxes, scores, 100)
    assert values.tolist() == pytest.approx([0.5, 0.2])
    assert classes.tolist() == [0, 1]
    assert found.shape == (2, 4)


def test_of_very_many_only_the_best_are_compared() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1000, (20_000, 2)).astype(np.float32)
    boxes = np.hstack((corners, corners + 5))
    scores = rng.uniform(0.02, 1, (20_000, 3)).astype(np.float32)
    _, values, _ = best_boxes(boxes, scores, CANDIDATES + 50)
    assert len(values) <= CANDIDATES
    assert values.min() >= np.sort(scores.reshape(-1))[-CANDIDATES]
    assert values[0] == scores.max()


def test_of_equal_scores_the_first_places_stay() -> None:
    boxes = np.arange(1000, dtype=np.float32)[:, None] * 20 + np.array([0, 0, 10, 10], dtype=np.float32)
    found, _, _ = best_boxes(boxes, np.full((1000, 1), 0.5, dtype=np.float32), 5)
    assert found.tolist() == boxes[:5].tolist()
