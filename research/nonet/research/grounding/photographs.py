"""Expressions with photographs: those that figures are reported on, phrases to choose by, and to learn from."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nonet.research.detection.pictures import Annotated, coco, coco_names, voc_animals
from nonet.research.grounding.refcoco import REPORTED_PICTURES
from nonet.research.grounding.scenes import SEED, Example, Scene
from nonet.research.grounding.templates import phrases

__all__ = ["Photograph", "chosen_by", "reported"]

_OF_ONE = 4  # phrases of a picture
_VOC_PICTURES = 90


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture and expressions of it; their boxes are fractions of the picture."""

    name: str
    picture: Image.Image
    examples: list[Example]


def reported(root: Path) -> list[Photograph]:
    """What figures are reported on and nothing is trained on or chosen by: the human expressions and rule-made
    phrases of `rec_photos`, and the human ones of `refcoco_extra`. Expressions that mean nothing there have no
    box.
    """
    found: dict[str, Photograph] = {}
    for line in (root / "rec_photos" / "triples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = row["file_name"]
        if name not in found:
            picture = Image.open(root / "rec_photos" / "images" / name).convert("RGB")
            found[name] = Photograph(name, picture, [])
        box = None
        if not row["empty"]:
            x, y, width, height = row["bbox_xywh"]
            box = (
                x / row["width"],
                y / row["height"],
                (x + width) / row["width"],
                (y + height) / row["height"],
            )
        origin = "human" if row["kind"] == "human" else f"template {row['rule']}"
        found[name].examples.append(Example(_blank(name), row["expression"], box, -1, origin))
    folder = root / "refcoco_extra"
    for line in (folder / "expressions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = row["file"]
        if name not in found:
            found[name] = Photograph(name, Image.open(folder / name).convert("RGB"), [])
        width, height = found[name].picture.size
        x1, y1, x2, y2 = row["box"]
        box = (x1 / width, y1 / height, x2 / width, y2 / height)
        found[name].examples.append(Example(_blank(name), row["expression"], box))
    return list(found.values())


def chosen_by(root: Path) -> list[Photograph]:
    """Phrases by rule about photographs that neither the matcher nor our detector learnt from and nothing is
    reported on: COCO's val2017 pictures without those of `rec_photos`, and animals of VOC's part for choosing.
    """
    classes = coco_names(root)
    told = {file.name for file in (root / "rec_photos" / "images").iterdir()}
    pictures = [each for each in coco(root, "val2017") if each.name not in told]
    animals = [each for each in voc_animals(root, "val") if each.complete and len(each.boxes) > 1]
    draw = random.Random(SEED)
    found = [_with_phrases(each, classes, draw) for each in [*pictures, *animals[:_VOC_PICTURES]]]
    return [each for each in found if each.examples]


def learnt_from(root: Path) -> Iterator[Photograph]:
    """The same of the parts to learn from: COCO's train2017 pictures and VOC's with several objects."""
    classes = coco_names(root)
    draw = random.Random(SEED)
    for picture in coco(root, "train2017"):
        if int(picture.name.split(".")[0]) not in REPORTED_PICTURES:
            yield _with_phrases(picture, classes, draw, 12)
    for picture in voc_animals(root, "train"):
        if picture.complete and len(picture.boxes) > 1:
            yield _with_phrases(picture, classes, draw, 6)


def _with_phrases(
    each: Annotated, classes: list[str], draw: random.Random, most: int = _OF_ONE
) -> Photograph:
    picture = each.decoded()
    size = np.array([picture.width, picture.height] * 2)
    boxes = (each.boxes / size).clip(0, 1).astype(np.float32)
    marked = Scene(
        each.name, boxes, each.classes, np.ones(len(boxes), np.float32), None, picture.width / picture.height
    )
    made = list(phrases(marked, classes, draw)) if len(boxes) else []
    return Photograph(each.name, picture, draw.sample(made, min(len(made), most)))


def _blank(name: str) -> Scene:
    """A scene whose regions a detector has yet to find."""
    return Scene(
        name, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), None, 1.0
    )
