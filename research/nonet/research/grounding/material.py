"""The examples of a preset: what people said of RefCOCO's boxes, phrases made by rule, real detections."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nonet.research.detection.pictures import coco, coco_names
from nonet.research.grounding.refcoco import REPORTED_PICTURES, refcoco_examples
from nonet.research.grounding.scenes import SEED, Example, Floats, Scene, part_of
from nonet.research.grounding.templates import phrases
from nonet.runtime.images.regions import COLOURS

__all__ = ["Material", "annotated_material", "coco_scenes", "object_pool"]

_MADE_UP_SCENES = 1500
_PHRASES = 10  # of one scene, at most


@dataclass(frozen=True, eq=False)
class Material:
    """Examples to learn from and to choose by, and real objects to imitate a detector with."""

    train: list[Example]
    choose: list[Example]
    pool: tuple[Floats, npt.NDArray[np.int64]]
    classes: list[str]


def annotated_material(
    root: Path, most: int | None = None, told: Callable[[str], None] = lambda line: None
) -> Material:
    """What can be had without a photograph: RefCOCO's texts and boxes, boxes of COCO's first training
    pictures, layouts made of such boxes, and phrases about all of them.

    Args:
        most: of the human expressions to learn from, drawn by a fixed seed; all by default.
    """
    classes = coco_names(root)
    human = refcoco_examples(root, classes)
    told(f"{len(human)} expressions of RefCOCO")
    marked = coco_scenes(root, "train2017")
    pool = object_pool(marked)
    draw = random.Random(SEED)
    parts: dict[str, list[Example]] = {"train": [], "choose": [], "report": []}
    for example in human:
        parts[part_of(example.scene.picture)].append(example)
    if most is not None and len(parts["train"]) > most:
        parts["train"] = draw.sample(parts["train"], most)
    scenes = list({example.scene.picture: example.scene for example in human}.values())
    layouts = [_layout(pool, number, draw) for number in range(_MADE_UP_SCENES)]
    for scene in [*scenes, *marked, *layouts]:
        if part_of(scene.picture) == "train":
            made = list(phrases(scene, classes, draw))
            made += _coloured(scene, classes, draw)
            parts["train"] += draw.sample(made, min(len(made), _PHRASES if scene in layouts else 5))
    told(f"{len(parts['train'])} examples to learn from")
    return Material(parts["train"], parts["choose"], pool, classes)


def coco_scenes(root: Path, part: str) -> list[Scene]:
    """The marked boxes of `coco256`, of pictures that nothing is reported on."""
    scenes = []
    for picture in coco(root, part):
        number = int(picture.name.split(".")[0])
        if number in REPORTED_PICTURES or not len(picture.boxes):
            continue
        width, height = picture.decoded().size
        boxes = (picture.boxes / np.array([width, height, width, height])).clip(0, 1).astype(np.float32)
        ones = np.ones(len(boxes), np.float32)
        scenes.append(Scene(f"coco {number}", boxes, picture.classes, ones, None, width / height))
    return scenes


def object_pool(scenes: Sequence[Scene]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Boxes and names of all objects of scenes."""
    boxes = np.concatenate([scene.boxes for scene in scenes])
    names: npt.NDArray[np.int64] = np.concatenate([scene.names for scene in scenes])
    return boxes, names


def _layout(pool: tuple[Floats, npt.NDArray[np.int64]], number: int, draw: random.Random) -> Scene:
    """Several of one class and one each of others, where they do not hide one another: relations are rare in
    pictures, and order among many rarer.
    """
    boxes, names = pool
    kinds = [draw.randrange(80) if draw.random() < 0.6 else int(draw.choice(names)) for _ in range(4)]
    wanted = [kinds[0]] * draw.randint(2, 6) + list(dict.fromkeys(kinds[1:]))
    placed: list[tuple[float, float, float, float]] = []
    called: list[int] = []
    base = boxes[draw.randrange(len(boxes))]
    for name in wanted:
        size = base if name == kinds[0] else boxes[draw.randrange(len(boxes))]
        spread = draw.uniform(0.6, 1.5)
        width = min(0.5, max(0.06, float(size[2] - size[0]) * spread))
        height = min(0.6, max(0.06, float(size[3] - size[1]) * spread))
        for _ in range(20):
            x, y = draw.uniform(0, 1 - width), draw.uniform(0, 1 - height)
            if all(
                x + width * 0.7 < a or c < x + width * 0.3 or y + height * 0.7 < b or d < y + height * 0.3
                for a, b, c, d in placed
            ):
                placed.append((x, y, x + width, y + height))
                called.append(name)
                break
    found = np.array(placed, np.float32)
    ones = np.ones(len(found), np.float32)
    return Scene(
        f"layout {number}", found, np.array(called), ones, None, draw.choice((4 / 3, 1.5, 0.75, 1.0))
    )


def _coloured(scene: Scene, classes: list[str], draw: random.Random) -> list[Example]:
    """Phrases with a colour; the looks that make them true are drawn when the lesson is."""
    made = []
    for _ in range(2):
        index = draw.randrange(len(scene.boxes))
        colour, word = draw.choice(COLOURS), classes[scene.names[index]]
        if word == "person":
            forms: tuple[str, ...] = (
                "the person in {c}",
                "person wearing {c}",
                "{c} shirt",
                "the one in the {c} jacket",
                "person in {c} pants",
                "man in {c}",
                "woman in {c} top",
                "person with the {c} shirt",
            )
        else:
            forms = ("the {c} {n}", "{c} {n}", "the {n} that is {c}", "the {c} one")
        x1, y1, x2, y2 = scene.boxes[index].tolist()
        text = draw.choice(forms).format(c=colour, n=word)
        made.append(Example(scene, text, (x1, y1, x2, y2), index, "template colour"))
    return made
