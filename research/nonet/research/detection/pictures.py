"""The photographs with boxes that detectors learn from and are measured on, each set read from its folder.

Every set is split by the unit that leaks (picture, or clip of a film): a tenth is for the last measurement
and nothing else, a tenth for choosing, the rest for training.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")
SEED = 20261130

#: PASCAL VOC classes that COCO calls otherwise.
VOC_AS_COCO = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
CELLS = ("RBC", "WBC", "Platelets")

#: What the figures of a family are measured on.
DATASETS = {
    "coco": "90 pictures of COCO val2017 (coco256); animals: VOC pictures of voc2012_animals",
    "fod": "fod_a_mini, by clip",
    "cells": "bccd",
}


@dataclass(frozen=True)
class Annotated:
    """A picture and the objects that a person marked in it.

    Args:
        name: of the picture in its set.
        content: the encoded picture.
        boxes: (N, 4) float32, corners in pixels of the picture, inside it.
        classes: (N,) int64.
        complete: whether everything of the set's own classes is marked, as far as people do.
        taught: whether a teacher may add to it objects that nobody marked.
    """

    name: str
    content: bytes
    boxes: np.ndarray
    classes: np.ndarray
    complete: bool = True
    taught: bool = False

    def decoded(self) -> Image.Image:
        """The picture in RGB."""
        return Image.open(io.BytesIO(self.content)).convert("RGB")


def split_of(units: Sequence[str]) -> dict[str, str]:
    """A split for each unit: of a shuffle by a fixed seed the first tenth is `test`, the second `val`."""
    names = sorted(set(units))
    random.Random(SEED).shuffle(names)
    tenth = max(1, round(len(names) / 10))
    return {
        name: "test" if index < tenth else "val" if index < 2 * tenth else "train"
        for index, name in enumerate(names)
    }


def coco_names(root: Path) -> list[str]:
    """The 80 COCO classes in order."""
    return (root / "coco256" / "classes.txt").read_text(encoding="utf-8").split("\n")[:80]


def coco(root: Path, part: str) -> Iterator[Annotated]:
    """The pictures of `coco256`; `part` is `train2017` or `val2017`."""
    folder = root / "coco256"
    for file in sorted((folder / "images" / part).glob("*.jpg")):
        content = file.read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        text = (folder / "labels" / part / f"{file.stem}.txt").read_text(encoding="utf-8")
        rows = np.array([line.split() for line in text.splitlines() if line.strip()], dtype=np.float64)
        rows = rows.reshape(-1, 5)
        size = np.array([width, height])
        centre, half = rows[:, 1:3] * size, rows[:, 3:5] * size / 2
        yield _annotated(file.name, content, np.hstack((centre - half, centre + half)), rows[:, 0])


def voc_animals(root: Path, split: str) -> Iterator[Annotated]:
    """The pictures of `voc2012_animals` in COCO's classes. Those from the web have boxes of animals alone."""
    folder = root / "voc2012_animals"
    names = coco_names(root)
    voc = (folder / "classes.txt").read_text(encoding="utf-8").split()
    index = np.array([names.index(VOC_AS_COCO.get(name, name)) for name in voc])
    with gzip.open(folder / "annotations.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    splits = split_of([row["file"] for row in rows])
    with zipfile.ZipFile(folder / "images.zip") as images:
        for row in rows:
            if splits[row["file"]] != split:
                continue
            boxes = np.array(row["boxes"], dtype=np.float64).reshape(-1, 5)
            classes = index[boxes[:, 0].astype(int)]
            yield _annotated(
                row["file"],
                images.read(row["file"]),
                boxes[:, 1:],
                classes,
                complete=row["origin"] == "voc2012",
                taught=True,
            )


def unlabelled(root: Path, name: str) -> Iterator[Annotated]:
    """The pictures of a set whose boxes nobody marked, e.g. `flickr8k_1000`."""
    empty = np.zeros((0, 4)), np.zeros(0)
    with zipfile.ZipFile(root / name / "images.zip") as images:
        for file in sorted(images.namelist()):
            if not file.endswith("/"):
                yield _annotated(file, images.read(file), *empty, complete=False, taught=True)


def tiny_imagenet(root: Path) -> Iterator[Annotated]:
    """Tiles of 64 pixels of the classes that COCO has too, one box each."""
    folder = root / "tiny_imagenet_64"
    names = coco_names(root)
    with (folder / "classes.csv").open(newline="", encoding="utf-8") as source:
        known = {
            row["wnid"]: names.index(row["coco_class"]) for row in csv.DictReader(source) if row["coco_class"]
        }
    with (folder / "index.csv").open(newline="", encoding="utf-8") as source:
        rows = [row for row in csv.DictReader(source) if row["wnid"] in known]
    sheets: dict[str, np.ndarray] = {}
    for row in rows:
        wnid, tile = row["wnid"], int(row["tile"])
        if wnid not in sheets:
            sheets = {wnid: np.asarray(Image.open(folder / "mosaics" / f"{wnid}.jpg").convert("RGB"))}
        y, x = divmod(tile, 18)
        buffer = io.BytesIO()
        Image.fromarray(sheets[wnid][64 * y : 64 * y + 64, 64 * x : 64 * x + 64]).save(buffer, "PNG")
        box = np.array([[float(row[key]) for key in ("x1", "y1", "x2", "y2")]])
        box[:, 2:] += 1  # the corners are inclusive there
        yield _annotated(f"{wnid}_{tile}", buffer.getvalue(), box, [known[wnid]], complete=False, taught=True)


def debris_names(root: Path) -> list[str]:
    """The 31 kinds of debris in `fod_a_mini`, sorted."""
    with (root / "fod_a_mini" / "boxes.csv").open(newline="", encoding="utf-8") as source:
        return sorted({row["label"] for row in csv.DictReader(source)})


def debris(root: Path, split: str) -> Iterator[Annotated]:
    """Runway pictures of `fod_a_mini`, split by clip: frames of one clip look alike."""
    folder = root / "fod_a_mini"
    names = debris_names(root)
    with (folder / "boxes.csv").open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    splits = split_of([row["clip"] for row in rows])
    pictures: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if splits[row["clip"]] == split:
            pictures.setdefault(row["image"], []).append(row)
    for name, marked in pictures.items():
        boxes = [[float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")] for row in marked]
        yield _annotated(
            name,
            (folder / "JPEGImages" / name).read_bytes(),
            np.array(boxes),
            [names.index(row["label"]) for row in marked],
        )


def cells(root: Path, split: str) -> Iterator[Annotated]:
    """Microscope pictures of `bccd`: red cells, white cells, platelets."""
    folder = root / "bccd"
    files = sorted((folder / "JPEGImages").glob("*.jpg"))
    splits = split_of([file.stem for file in files])
    for file in files:
        if splits[file.stem] != split:
            continue
        tree = ElementTree.parse(folder / "Annotations" / f"{file.stem}.xml")
        boxes, classes = [], []
        for item in tree.iter("object"):
            corners = [float(item.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax")]
            boxes.append(corners)
            classes.append(CELLS.index(item.findtext("name", "")))
        yield _annotated(file.name, file.read_bytes(), np.array(boxes).reshape(-1, 4), classes)


def held_back(family: str, root: Path, split: str) -> Iterator[Annotated]:
    """Pictures on which a family is chosen (`val`) or measured for the last time (`test`).

    Of COCO nothing is for choosing: its 128 training pictures are too few to lose some; there `val` is of the
    VOC pictures.
    """
    if family == "coco":
        return coco(root, "val2017") if split == "test" else voc_animals(root, split)
    return debris(root, split) if family == "fod" else cells(root, split)


def _annotated(
    name: str,
    content: bytes,
    boxes: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    complete: bool = True,
    taught: bool = False,
) -> Annotated:
    """Boxes cut to the picture; empty ones go."""
    size = Image.open(io.BytesIO(content)).size
    boxes = np.clip(np.asarray(boxes, dtype=np.float32), 0, np.array(size * 2, dtype=np.float32))
    real = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    return Annotated(name, content, boxes[real], np.asarray(classes, dtype=np.int64)[real], complete, taught)
