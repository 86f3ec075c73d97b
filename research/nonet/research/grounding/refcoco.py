"""RefCOCO, RefCOCO+ and RefCOCOg: what people said of objects, and their boxes, without the pictures.

The files have neither the class of an object nor the size of a picture. The class is what most of the
object's expressions call it, else what its neighbours are, since the games ask about objects that have others
of their class beside them (the pictures of testA show people). The size is the smallest usual one that holds
all boxes.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nonet.research.grounding.nouns import class_of_instance
from nonet.research.grounding.scenes import Example, Scene

__all__ = ["REPORTED_PICTURES", "refcoco_examples"]

_FILES = (
    *("refcoco_val", "refcoco_testA", "refcoco_testB", "refcoco+_val", "refcoco+_testA", "refcoco+_testB"),
    "refcocog_val",
)
#: Sizes of COCO's pictures, the usual ones first.
_SIZES = ((640, 480), (640, 427), (480, 640), (427, 640), (500, 375), (640, 640))

#: COCO pictures whose photographs are at hand: figures are reported on them, nothing is trained on them.
REPORTED_PICTURES = frozenset({154, 309, 605, 716})


@dataclass
class _Seen:
    """A picture as its rows tell it."""

    boxes: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    said: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    people: bool = False
    things: bool = False


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in _FILES:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                yield name, json.loads(line)


def refcoco_examples(root: Path, classes: list[str]) -> list[Example]:
    """All expressions of the pictures that nothing is reported on, with each picture's objects as its scene.

    Args:
        root: the folder of the data sets.
        classes: COCO's names in order.
    """
    pictures: dict[int, _Seen] = defaultdict(_Seen)
    for name, row in _rows(root / "refcoco_annotations"):
        if row["image_id"] in REPORTED_PICTURES:
            continue
        seen = pictures[row["image_id"]]
        x, y, width, height = row["bbox_xywh"]
        seen.boxes[row["ann_id"]] = (x, y, x + width, y + height)
        if row["expression"] not in seen.said[row["ann_id"]]:
            seen.said[row["ann_id"]].append(row["expression"])
        seen.people |= name.endswith("testA")
        seen.things |= name.endswith("testB")
    return [each for image, seen in sorted(pictures.items()) for each in _examples(image, seen, classes)]


def _examples(image: int, seen: _Seen, classes: list[str]) -> Iterator[Example]:
    objects = sorted(seen.boxes)
    names = _names_of(seen, objects, classes)
    if names is None:
        return
    pixels = np.array([seen.boxes[each] for each in objects], np.float64)
    right, bottom = pixels[:, 2].max(), pixels[:, 3].max()
    width, height = next((size for size in _SIZES if right <= size[0] and bottom <= size[1]), (640, 640))
    boxes = (pixels / [width, height, width, height]).clip(0, 1).astype(np.float32)
    scene = Scene(
        f"coco {image}",
        boxes,
        np.array([classes.index(name) for name in names]),
        np.ones(len(boxes), np.float32),
        None,
        width / height,
    )
    for index, each in enumerate(objects):
        x1, y1, x2, y2 = boxes[index].tolist()
        for expression in seen.said[each]:
            yield Example(scene, expression, (x1, y1, x2, y2), index)


def _names_of(seen: _Seen, objects: list[int], classes: list[str]) -> list[str] | None:
    """A class for each object; None where nobody said what any of them is."""
    among = ["person"] if seen.people else [name for name in classes if not seen.things or name != "person"]
    voted = {each: class_of_instance(seen.said[each], among) for each in objects}
    weights: Counter[str] = Counter()
    for name, share in voted.values():
        if name is not None:
            weights[name] += share  # type: ignore[assignment]
    if seen.people:
        return ["person"] * len(objects)
    if not weights:
        return None
    usual = max(weights, key=lambda name: weights[name])
    return [name if name is not None and share >= 0.3 else usual for name, share in voted.values()]
