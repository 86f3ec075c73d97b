"""Lessons: the wanted answer stays true under a detector's faults, in the mirror and with foreign texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nonet.research.grounding.lessons import Lessons, Seen, tensors_of
from nonet.research.grounding.made_up_looks import made_up_looks
from nonet.research.grounding.nouns import SAID
from nonet.research.grounding.scenes import Example, Scene, overlaps
from nonet.research.grounding.states import WIDTH, TextStates
from nonet.runtime.images.regions import COLOURS, LOOKS

CLASSES = list(SAID)
NAMES = np.random.default_rng(0).normal(size=(80, WIDTH)).astype(np.float32)
DOG, CUP = CLASSES.index("dog"), CLASSES.index("cup")


class Lengths(TextStates):
    """Ones, as many as the text has words: what lessons do with texts needs no encoder."""

    def of(self, text: str) -> np.ndarray:
        return np.ones((len(text.split()), WIDTH), np.float16)


def scene(name: int, rows: list[tuple[float, float, float, float]]) -> Scene:
    boxes = np.array(rows, np.float32)
    return Scene(f"{name}", boxes, np.full(len(rows), name), np.ones(len(rows), np.float32), None, 1.5)


DOGS = scene(DOG, [(0.05, 0.2, 0.3, 0.7), (0.6, 0.2, 0.9, 0.8)])
CUPS = scene(CUP, [(0.1, 0.1, 0.4, 0.5), (0.5, 0.5, 0.9, 0.9)])
EXAMPLES = [
    Example(DOGS, "the left dog", (0.05, 0.2, 0.3, 0.7), 0),
    Example(DOGS, "the right dog", (0.6, 0.2, 0.9, 0.8), 1),
    Example(CUPS, "the left cup", (0.1, 0.1, 0.4, 0.5), 0),
    Example(CUPS, "cup in the bottom right corner", (0.5, 0.5, 0.9, 0.9), 1),
]
POOL = (np.array([[0.4, 0.4, 0.5, 0.6], [0.2, 0.6, 0.4, 0.9]], np.float32), np.array([5, 7]))


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    return Lessons(EXAMPLES, Lengths(None), NAMES, CLASSES, POOL)


def test_the_wanted_region_is_the_one_that_is_meant(lessons: Lessons) -> None:
    """Of two things of one name, left or right of the middle, mirrored or not, moved or doubled."""
    nothing = 0
    for seed in range(300):
        seen = lessons.seen(seed % 2, np.random.default_rng(seed))
        assert seen.share.sum() == pytest.approx(1)
        if seen.share[-1] == 1:
            nothing += 1
            assert "cup" in seen.expression
            continue
        best = int(seen.share[:-1].argmax())
        centre = seen.boxes[best, [0, 2]].mean()
        assert ("left" in seen.expression) == (centre < 0.5)
        assert seen.boxes.min() >= 0
        assert seen.boxes.max() <= 1
    assert 5 < nothing < 60


def test_a_lesson_depends_on_its_seed_alone(lessons: Lessons) -> None:
    def batch() -> list[bytes]:
        made = lessons(torch.tensor([0, 1, 2, 3, 0]), torch.Generator().manual_seed(7), 0.0)
        return [each.numpy().tobytes() for each in (*made.inputs, made.shares)]

    assert batch() == batch()


def test_real_regions_are_wanted_where_they_overlap() -> None:
    boxes = np.array([[0.1, 0.1, 0.4, 0.5], [0.12, 0.1, 0.42, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32)
    names, scores = np.array([CUP, CUP, DOG]), np.full(3, 0.5, np.float32)
    found = Scene("real", boxes, names, scores, np.ones((3, LOOKS), np.float32), 1.0, marked=False)
    box = (0.1, 0.1, 0.4, 0.5)
    made = Lessons([Example(found, "the cup", box)], Lengths(None), NAMES, CLASSES, POOL)
    for seed in range(50):
        seen = made.seen(0, np.random.default_rng(seed))
        wanted = seen.boxes[seen.share[:-1] > 0]
        turned = (1 - box[2], box[1], 1 - box[0], box[3])
        assert len(wanted) == 2
        assert max(overlaps(wanted, box).min(), overlaps(wanted, turned).min()) > 0.5


def test_padding_is_zeros_with_mask_zero() -> None:
    def seen(count: int) -> Seen:
        share = np.eye(count + 1, dtype=np.float32)[0]
        boxes = np.full((count, 4), 0.5, np.float32)
        looks = np.ones((count, LOOKS), np.float32)
        return Seen(boxes, np.zeros(count, int), np.ones(count, np.float32), looks, 1.0, "a dog here", share)

    lesson = tensors_of([seen(1), seen(3)], Lengths(None), NAMES, 5)
    boxes, mask, scores, names, looks, aspect, tokens, token_mask = lesson.inputs
    assert mask.tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]
    for each in (boxes, scores, names, looks):
        assert not each[mask == 0].any()
    assert tokens.shape == (2, 3, WIDTH)
    assert token_mask.all()
    assert aspect.tolist() == [1, 1]
    assert lesson.shares.shape == (2, 6)


def test_a_colour_that_is_said_is_seen_on_what_is_meant() -> None:
    draw = np.random.default_rng(0)
    red = COLOURS.index("red")
    rivals = np.ones(4, np.bool_)
    seen = [made_up_looks(4, 2, rivals, ("red",), "dog in red", draw) for _ in range(200)]
    looks = np.stack(seen)[..., red]
    assert (looks.argmax(1) == 2).mean() > 0.9
    top, bottom = red + 2 * len(COLOURS), red + 3 * len(COLOURS)
    worn = np.stack([made_up_looks(1, 0, rivals[:1], ("red",), "red shirt", draw)[0] for _ in range(200)])
    assert worn[:, top].mean() > 2 * worn[:, bottom].mean()
