"""How often the chosen region is the one that is meant (IoU above 0.5), with intervals by picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nonet.research.grounding.lessons import Seen, tensors_of
from nonet.research.grounding.nouns import first_class
from nonet.research.grounding.scenes import Example, Floats, Scene, overlaps
from nonet.research.grounding.states import TextStates
from nonet.research.grounding.wording import kind_of, mirrored
from nonet.research.ref_l4.baselines import NamedBox, by_name_and_place

__all__ = ["Answer", "Choose", "Outcome", "accuracy_of", "baselines", "by_matcher", "measured"]

HIT = 0.5
_RESAMPLES = 2000


@dataclass(frozen=True)
class Answer:
    """A chosen region (None where there is none) and the probability that nothing is meant."""

    region: int | None
    nothing: float


#: Answers for expressions of one scene.
Choose = Callable[[Scene, Sequence[str]], list[Answer]]
#: Shares (B, R + 1) for a batch of the network's inputs.
Forward = Callable[[tuple[np.ndarray, ...]], Floats]


@dataclass(frozen=True)
class Outcome:
    """What became of an example.

    Args:
        hit: whether the chosen box overlaps the one that is meant by more than half; of an example that means
            nothing, whether nothing was more likely than anything.
        reachable: whether any region does.
    """

    picture: str
    origin: str
    kind: str
    empty: bool
    hit: bool
    reachable: bool
    nothing: float


def by_matcher(
    forward: Forward, states: TextStates, names: Floats, rows: int | None = 64, best: bool = False
) -> Choose:
    """The matcher's choice; ``best`` asks it in the mirror too and takes the mean."""

    def shares(scene: Scene, texts: Sequence[str]) -> Floats:
        empty = np.zeros(len(scene.boxes) + 1, np.float32)
        assert scene.looks is not None
        seen = [
            Seen(scene.boxes, scene.names, scene.scores, scene.looks, scene.aspect, text, empty)
            for text in texts
        ]
        lesson = tensors_of(seen, states, names, rows)
        return forward(tuple(each.numpy() for each in lesson.inputs))

    def choose(scene: Scene, texts: Sequence[str]) -> list[Answer]:
        found = shares(scene, texts)
        if best:
            turned = scene.boxes.copy()
            turned[:, 0], turned[:, 2] = 1 - scene.boxes[:, 2], 1 - scene.boxes[:, 0]
            mirror = Scene(scene.picture, turned, scene.names, scene.scores, scene.looks, scene.aspect, False)
            again = shares(mirror, [mirrored(text) for text in texts])
            found = np.asarray((found + again) / 2, np.float32)
        count = len(scene.boxes)
        return [Answer(int(row[:count].argmax()) if count else None, float(row[-1])) for row in found]

    return choose


def baselines(states: TextStates, names: Floats, classes: list[str]) -> dict[str, Choose]:
    """What has to be beaten: the largest region; the largest of the class whose name's state is nearest to
    the text's; of the class that a table of nouns finds; the same with words of place and size.
    """

    def largest_of(scene: Scene, among: np.ndarray) -> int | None:
        if not len(scene.boxes):
            return None
        areas = (scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1)
        return int(np.argmax(np.where(among, areas, -1)))

    def largest(scene: Scene, texts: Sequence[str]) -> list[Answer]:
        return [Answer(largest_of(scene, np.ones(len(scene.boxes), np.bool_)), 0.0) for _ in texts]

    def nearest_name(scene: Scene, texts: Sequence[str]) -> list[Answer]:
        found = []
        for text in texts:
            likeness = names[scene.names] @ states.whole(text)
            found.append(Answer(largest_of(scene, likeness >= likeness.max(initial=-2.0)), 0.0))
        return found

    def noun_table(scene: Scene, texts: Sequence[str]) -> list[Answer]:
        found = []
        for text in texts:
            name = first_class(text, {classes[index] for index in scene.names})
            among = np.ones(len(scene.names), np.bool_)
            if name is not None:
                among = scene.names == classes.index(name)
            found.append(Answer(largest_of(scene, among), 0.0))
        return found

    def nouns_and_places(scene: Scene, texts: Sequence[str]) -> list[Answer]:
        boxes = [
            NamedBox(classes[name], (float(x1), float(y1), float(x2), float(y2)))
            for name, (x1, y1, x2, y2) in zip(scene.names, scene.boxes, strict=True)
        ]
        found = []
        for text in texts:
            box = by_name_and_place(text, boxes, 1.0, 1.0)
            found.append(Answer(next((i for i, each in enumerate(boxes) if each.box == box), None), 0.0))
        return found

    return {
        "largest box": largest,
        "class by sentence similarity": nearest_name,
        "noun table": noun_table,
        "noun table and place words": nouns_and_places,
    }


def measured(scenes: Sequence[tuple[Scene, Sequence[Example]]], choose: Choose) -> list[Outcome]:
    """An outcome for each example of each scene."""
    outcomes = []
    for scene, examples in scenes:
        answers = choose(scene, [each.expression for each in examples])
        for example, answer in zip(examples, answers, strict=True):
            if example.box is None:
                hit, reachable = answer.nothing > HIT, False
            else:
                shares = overlaps(scene.boxes, example.box)
                hit = answer.region is not None and bool(shares[answer.region] > HIT)
                reachable = bool((shares > HIT).any())
            kind = kind_of(example.expression)
            outcomes.append(
                Outcome(
                    scene.picture, example.origin, kind, example.box is None, hit, reachable, answer.nothing
                )
            )
    return outcomes


def accuracy_of(outcomes: Sequence[Outcome], seed: int = 0) -> dict[str, float | int]:
    """Accuracy, its 95 % interval by resampling pictures, the bound that the regions set, and how many."""
    if not outcomes:
        return {"count": 0}
    pictures: dict[str, list[Outcome]] = {}
    for each in outcomes:
        pictures.setdefault(each.picture, []).append(each)
    hits = np.array([sum(each.hit for each in group) for group in pictures.values()], np.float64)
    sizes = np.array([len(group) for group in pictures.values()], np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (_RESAMPLES, len(sizes)))
    resampled = hits[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "accuracy": round(float(hits.sum() / sizes.sum()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "bound": round(sum(each.reachable for each in outcomes) / len(outcomes), 4),
        "count": len(outcomes),
        "pictures": len(pictures),
    }
