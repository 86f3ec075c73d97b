"""Expressions of photographs: those that figures are reported on, phrases to choose by and to learn from."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from nonet.research.detection.pictures import Annotated, coco, coco_names, voc_animals
from nonet.research.fasternet.training import Report
from nonet.research.grounding.proposals import propose, published_detector, yolox
from nonet.research.grounding.refcoco import REPORTED_PICTURES
from nonet.research.grounding.scenes import SEED, Example, Scene, overlaps
from nonet.research.grounding.templates import phrases

__all__ = ["Photograph", "chosen_by", "photograph_examples", "reported"]

_OF_ONE = 4  # phrases of a picture
_VOC_PICTURES = 90
_VOC_LEARNT = 400


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture and expressions of it; their boxes are fractions of the picture."""

    name: str
    picture: Image.Image
    examples: list[Example]


def reported(root: Path) -> list[Photograph]:
    """What figures are reported on and nothing is trained on or chosen by: the human expressions and
    rule-made phrases of `rec_photos`, and the human ones of `refcoco_extra`. Expressions that mean nothing
    there have no box.
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
    reported on: COCO's val2017 pictures without those of `rec_photos`, and animals of VOC's part for
    choosing.
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
    animals = (each for each in voc_animals(root, "train") if each.complete and len(each.boxes) > 1)
    for picture in itertools.islice(animals, _VOC_LEARNT):
        yield _with_phrases(picture, classes, draw, 6)


def photograph_examples(root: Path, repository: Path, report: Report) -> list[Example]:
    """What is learnt from photographs: their phrases, with the regions that the published detector finds in
    them, and those that YOLOX-Nano does, each pair of a picture and a phrase once with either.

    Raises FileNotFoundError where data or the published detector are absent.
    """
    detectors = [(published_detector(repository), 0.04), (yolox(root), 0.08)]
    examples = []
    draw = random.Random(SEED)
    for count, photograph in enumerate(learnt_from(root)):
        if count % 100 == 0:
            report({"stage": "finding regions", "pictures": count})
        for find, least in detectors:
            scene = propose(photograph.picture, photograph.name, find, least)
            for each in photograph.examples:
                assert each.box is not None
                # What was not found teaches only that nothing fits: a few of those will do.
                if (overlaps(scene.boxes, each.box) >= 0.5).any() or draw.random() < 0.3:
                    examples.append(replace(each, scene=scene, region=-1))
    return examples


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
