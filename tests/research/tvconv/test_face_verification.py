"""Verification figures against cases whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from nonet.research.tvconv.face_files import Faces, person_split
from nonet.research.tvconv.verification import (
    all_pairs,
    balanced_pairs,
    curve,
    errors_at,
    similarities,
    ten_fold,
    unit,
)


def faces(persons: list[int], sets: list[int]) -> Faces:
    names = tuple(str(number) for number in range(max(persons) + 1))
    return Faces(np.zeros((len(persons), 1, 1, 3), np.uint8), np.array(persons), np.array(sets), names)


def test_pairs_are_within_a_data_set() -> None:
    pairs = all_pairs(faces([0, 0, 1, 2, 2], [0, 0, 0, 1, 1]))
    found = list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True))
    assert found == [(0, 1, True), (0, 2, False), (1, 2, False), (3, 4, True)]
    assert len(all_pairs(faces([0, 0, 1, 2, 2], [0, 0, 0, 1, 1]), within=1).same) == 1


def test_a_perfect_measure_has_no_errors_and_a_reversed_one_only() -> None:
    same = np.array([True, True, False, False, False])
    perfect = curve(np.array([0.9, 0.8, 0.3, 0.2, 0.1]), same)
    assert perfect.equal_error[0] == 0
    assert perfect.area == pytest.approx(1)
    assert perfect.accepted(0.0) == 1
    assert curve(np.array([0.1, 0.2, 0.7, 0.8, 0.9]), same).area == pytest.approx(0)


def test_equal_similarities_are_accepted_together() -> None:
    same = np.array([True, False, True, False])
    both = curve(np.full(4, 0.5), same)
    assert (both.false_accepts.tolist(), both.false_rejects.tolist()) == ([1.0], [0.0])
    assert both.area == pytest.approx(0.5)


def test_the_curve_agrees_with_counting() -> None:
    random = np.random.default_rng(0)
    similarity, same = random.normal(size=300).round(1), random.random(300) < 0.3
    found = curve(similarity, same)
    for threshold, accepts, rejects in zip(
        found.thresholds, found.false_accepts, found.false_rejects, strict=True
    ):
        assert errors_at(similarity, same, threshold) == pytest.approx((accepts, rejects))


def test_ten_folds_of_separable_and_of_random_embeddings() -> None:
    random = np.random.default_rng(1)
    persons = np.repeat(np.arange(20), 6)
    data = faces(persons.tolist(), [0] * len(persons))
    pairs = balanced_pairs(data)
    assert abs(pairs.same.mean() - 0.5) < 1e-9
    centres = random.normal(size=(20, 16))
    good = unit(centres[persons] + 0.1 * random.normal(size=(120, 16)))
    assert ten_fold(good, pairs) > 0.99
    assert ten_fold(good, pairs, accumulate=True) > 0.95
    assert abs(ten_fold(unit(random.normal(size=(120, 16))), pairs) - 0.5) < 0.1
    assert similarities(good, pairs)[pairs.same].min() > similarities(good, pairs)[~pairs.same].mean()


def test_nobody_is_in_two_parts() -> None:
    names = [f"p{number}" for number in range(34)]
    parts = person_split(names)
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == sorted(names)
    assert (len(parts["test"]), len(parts["val"])) == (4, 6)
    assert person_split(list(reversed(names))) == parts
