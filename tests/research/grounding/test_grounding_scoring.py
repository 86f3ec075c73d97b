"""Accuracy counts overlaps of more than half; intervals by picture; baselines choose as they say."""

from __future__ import annotations

import numpy as np
import pytest

from nonet.research.grounding.nouns import SAID
from nonet.research.grounding.scenes import Example, Scene
from nonet.research.grounding.scoring import Answer, accuracy_of, baselines, by_matcher, measured
from nonet.research.grounding.states import WIDTH, TextStates
from nonet.runtime.images.regions import LOOKS

CLASSES = list(SAID)


class Words(TextStates):
    """Each text one state, the same for a class's name and a text that is only that."""

    def of(self, text: str) -> np.ndarray:
        seed = CLASSES.index(text) if text in CLASSES else 99
        return np.random.default_rng(seed).normal(size=(1, WIDTH)).astype(np.float16)


def scene(rows: list[tuple[str, float, float, float, float]], picture: str = "one") -> Scene:
    boxes = np.array([row[1:] for row in rows], np.float32).reshape(-1, 4)
    names = np.array([CLASSES.index(row[0]) for row in rows], np.int64)
    ones = np.ones(len(rows), np.float32)
    return Scene(picture, boxes, names, ones, np.zeros((len(rows), LOOKS), np.float32), 1.0, False)


SEEN = scene([("dog", 0.0, 0.0, 0.2, 0.2), ("dog", 0.5, 0.5, 0.8, 0.8), ("car", 0.1, 0.1, 0.9, 0.9)])
NAMES = np.stack([Words(None).whole(name) for name in CLASSES])


def picked(method: str, text: str, of: Scene = SEEN) -> int | None:
    return baselines(Words(None), NAMES, CLASSES)[method](of, [text])[0].region


def test_baselines_choose_as_they_say() -> None:
    assert picked("largest box", "left dog") == 2
    assert picked("class by sentence similarity", "dog") == 1
    assert picked("noun table", "the left puppy") == 1
    assert picked("noun table and place words", "the left puppy") == 0
    assert picked("noun table", "the zebra") == 2


@pytest.mark.parametrize("method", list(baselines(Words(None), NAMES, CLASSES)))
def test_baselines_have_no_box_where_there_is_none(method: str) -> None:
    assert picked(method, "the dog", scene([])) is None


def test_exactly_half_is_a_miss_and_nothing_is_right_where_nothing_is_meant() -> None:
    half = scene([("dog", 0.0, 0.0, 1.0, 0.5)])
    examples = [
        Example(half, "dog", (0, 0, 1, 1)),
        Example(half, "dog", (0, 0, 1, 0.9)),
        Example(half, "x", None),
    ]
    outcomes = measured([(half, examples)], lambda _, texts: [Answer(0, 0.7) for _ in texts])
    assert [each.hit for each in outcomes] == [False, True, True]
    assert [each.reachable for each in outcomes] == [False, True, False]


def test_an_interval_is_wider_when_pictures_are_few() -> None:
    def outcomes(pictures: int) -> list[Example]:
        return [
            (scene([("dog", 0, 0, 1, 1)], f"{index % pictures}"), [Example(SEEN, "dog", (0, 0, 1, 1))])
            for index in range(120)
        ]

    def choose(of: Scene, texts: list[str]) -> list[Answer]:
        return [Answer(0 if int(of.picture) % 2 else None, 0.0)]

    few, many = (accuracy_of(measured(outcomes(count), choose)) for count in (6, 120))
    assert few["accuracy"] == many["accuracy"] == 0.5
    assert few["high"] - few["low"] > 2 * (many["high"] - many["low"])
    assert accuracy_of([]) == {"count": 0}


def test_the_best_quality_asks_in_the_mirror_too() -> None:
    """One that prefers what is nearest to the left edge, asked twice, takes what is nearest to any edge."""

    def forward(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        left = -inputs[0][..., 0] - 9 * (1 - inputs[1])
        shares = np.exp(8 * left) / np.exp(8 * left).sum(1, keepdims=True)
        return np.concatenate([shares, np.zeros((len(shares), 1))], axis=1)

    two = scene([("dog", 0.2, 0, 0.3, 1), ("dog", 0.7, 0, 0.95, 1)])
    assert by_matcher(forward, Words(None), NAMES)(two, ["dog"])[0].region == 0
    assert by_matcher(forward, Words(None), NAMES, best=True)(two, ["dog"])[0].region == 1
