"""Examples into tensors: mirrored, with a detector's faults and looks, some with an expression of elsewhere.

What is made of an example depends on the seed of the step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nonet.research.grounding.detector_faults import FAULTS, detect
from nonet.research.grounding.made_up_looks import made_up_looks
from nonet.research.grounding.nouns import classes_named
from nonet.research.grounding.scenes import Example, Floats, Scene, overlaps
from nonet.research.grounding.states import TextStates
from nonet.research.grounding.wording import colours_meant, mirrored
from nonet.runtime.images.regions import LOOKS

__all__ = ["REGIONS", "Lesson", "Lessons", "Seen", "tensors_of"]

REGIONS = 64
_TRAINED = 28  # regions of a lesson: few pictures have more, and padding costs
_MIRRORED = 0.5
_ELSEWHERE = 0.14
_WITHOUT_LOOKS = 0.35
_LEVELS = (("none", 0.15), ("good", 0.5), ("weak", 0.35))
_HIT = 0.5  # intersection over union from which a region is what is meant


@dataclass(frozen=True, eq=False)
class Seen:
    """One example as the network sees it.

    Args:
        boxes, names, scores, looks: of the regions.
        share: (N + 1,) what the answer should be, regions first, none last; sums to 1.
    """

    boxes: Floats
    names: npt.NDArray[np.int64]
    scores: Floats
    looks: Floats
    aspect: float
    expression: str
    share: Floats


@dataclass(frozen=True, eq=False)
class Lesson:
    """A batch: the network's eight inputs, and the wanted shares (B, R + 1)."""

    inputs: tuple[Tensor, ...]
    shares: Tensor


def tensors_of(seen: Sequence[Seen], states: TextStates, names: Floats, regions: int | None = None) -> Lesson:
    """A batch of examples.

    Args:
        names: (80, 384) states of the classes' names.
        regions: rows of padding to fill up to; as many as the most in the batch by default.
    """
    count, rows = len(seen), regions or max(1, *(len(each.boxes) for each in seen))
    boxes = np.zeros((count, rows, 4), np.float32)
    mask, scores = np.zeros((count, rows), np.float32), np.zeros((count, rows), np.float32)
    called = np.zeros((count, rows, names.shape[1]), np.float32)
    looks = np.zeros((count, rows, LOOKS), np.float32)
    shares = np.zeros((count, rows + 1), np.float32)
    for row, each in enumerate(seen):
        size = len(each.boxes)
        boxes[row, :size], mask[row, :size], scores[row, :size] = each.boxes, 1, each.scores
        called[row, :size], looks[row, :size] = names[each.names], each.looks
        shares[row, :size], shares[row, -1] = each.share[:-1], each.share[-1]
    tokens, token_mask = states.together([each.expression for each in seen])
    aspect = np.array([each.aspect for each in seen], np.float32)
    arrays = (boxes, mask, scores, called, looks, aspect, tokens, token_mask)
    return Lesson(tuple(torch.from_numpy(each) for each in arrays), torch.from_numpy(shares))


class Lessons:
    """Makes batches of a list of examples.

    Args:
        examples: what the indices of a batch count.
        states: of all their texts and mirrored texts.
        names: (80, 384).
        classes: their names.
        pool: boxes and names of real objects, for what else a detector may see.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        states: TextStates,
        names: Floats,
        classes: list[str],
        pool: tuple[Floats, npt.NDArray[np.int64]],
    ) -> None:
        self._examples, self._states, self._names, self._pool = examples, states, names, pool
        index = {name: number for number, name in enumerate(classes)}
        self._named = [
            frozenset(index[name] for name in classes_named(each.expression) if name in index)
            for each in examples
        ]

    def __call__(self, indices: Tensor, generator: torch.Generator, share: float) -> Lesson:
        draw = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        return tensors_of([self.seen(index, draw) for index in indices.tolist()], self._states, self._names)

    def seen(self, index: int, draw: np.random.Generator) -> Seen:
        """One example with everything that happens to it."""
        example = self._examples[index]
        expression, named, region, box = example.expression, self._named[index], example.region, example.box
        if draw.random() < _ELSEWHERE:
            other = int(draw.integers(len(self._examples)))
            if self._named[other] and not self._named[other] & frozenset(example.scene.names.tolist()):
                expression, named = self._examples[other].expression, self._named[other]
                region, box = -1, None
        scene = example.scene
        if scene.marked:
            seen = self._of_marked(scene, expression, named, region, box, draw)
        else:
            seen = _of_detected(scene, expression, box, draw)
        return _mirror(seen) if draw.random() < _MIRRORED else seen

    def _of_marked(
        self,
        scene: Scene,
        expression: str,
        named: frozenset[int],
        region: int,
        box: tuple[float, float, float, float] | None,
        draw: np.random.Generator,
    ) -> Seen:
        scale, shift = draw.uniform(0.85, 1.08, 2), draw.uniform(-0.04, 0.08, 2)
        fitted = (scene.boxes * np.tile(scale, 2) + np.tile(shift, 2)).clip(0, 1).astype(np.float32)
        forbidden = np.zeros(80, np.bool_)
        forbidden[[*named, *scene.names.tolist()]] = True
        if region >= 0 and not named:
            forbidden[0] |= draw.random() < 0.5  # who is meant may be anybody
        level = draw.choice(len(_LEVELS), p=[share for _, share in _LEVELS])
        found = detect(fitted, scene.names, region, FAULTS[_LEVELS[level][0]], self._pool, forbidden, draw)
        kept = _at_most(_TRAINED, found.origin == region, draw)
        boxes: npt.NDArray[np.float32] = found.boxes[kept]
        names: npt.NDArray[np.int64] = found.names[kept]
        scores, origin = found.scores[kept], found.origin[kept]
        share = np.zeros(len(boxes) + 1, np.float32)
        target = -1
        if region < 0 or box is None:
            share[-1] = 1
        else:
            same = origin == region
            good = overlaps(boxes, fitted[region])
            weight = np.where(same & (good >= _HIT), good**2, 0)
            target = int(np.argmax(np.where(same, good, -1)))
            if weight.sum() == 0:
                weight[target] = 1
            share[:-1] = weight / weight.sum()
        if draw.random() < _WITHOUT_LOOKS:
            looks = np.zeros((len(boxes), LOOKS), np.float32)
        else:
            said = colours_meant(expression) if target >= 0 else ()
            rivals = names == names[target] if target >= 0 else np.zeros(len(names), np.bool_)
            looks = made_up_looks(len(boxes), target, rivals, said, expression, draw)
            if target >= 0:  # a thing found twice looks the same twice
                looks[origin == region] = looks[target]
        return Seen(boxes, names, scores, looks, scene.aspect, expression, share)


def _of_detected(
    scene: Scene, expression: str, box: tuple[float, float, float, float] | None, draw: np.random.Generator
) -> Seen:
    """Regions of a real detector, some of them left out."""
    share = np.zeros(len(scene.boxes) + 1, np.float32)
    good = overlaps(scene.boxes, box) if box is not None else np.zeros(len(scene.boxes))
    hit = good >= _HIT
    if hit.any():
        share[:-1] = np.where(hit, good**2, 0) / (np.where(hit, good**2, 0)).sum()
    else:
        share[-1] = 1
    kept = (hit | (draw.random(len(hit)) < 0.9)) & _at_most(_TRAINED, hit, draw)
    looks = scene.looks if scene.looks is not None else np.zeros((len(hit), LOOKS), np.float32)
    if draw.random() < _WITHOUT_LOOKS:
        looks = np.zeros_like(looks)
    return Seen(
        scene.boxes[kept],
        scene.names[kept],
        scene.scores[kept],
        looks[kept],
        scene.aspect,
        expression,
        share[[*np.flatnonzero(kept), -1]],
    )


def _at_most(most: int, always: npt.NDArray[np.bool_], draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which of the regions stay, ``most`` of them (or all that always do)."""
    kept = always.copy()
    others = np.flatnonzero(~always)
    kept[draw.permutation(others)[: max(0, most - int(always.sum()))]] = True
    return kept


def _mirror(seen: Seen) -> Seen:
    """The same in a mirror."""
    boxes = seen.boxes.copy()
    boxes[:, 0], boxes[:, 2] = 1 - seen.boxes[:, 2], 1 - seen.boxes[:, 0]
    return Seen(
        boxes, seen.names, seen.scores, seen.looks, seen.aspect, mirrored(seen.expression), seen.share
    )
