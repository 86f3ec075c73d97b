"""Pictures with classes to calibrate a variant on and to measure it on, which are never the same ones.

Two layouts: the grocery data, which the published family learnt from; and a folder of one's own with
``train/CLASS/*.jpg`` (or .png) and ``test/CLASS/*.jpg``, whose classes are named as the model's labels are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nonet.research.fasternet.grocery_files import grocery_rows
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import Preprocessing, decode_image, preprocess

__all__ = ["LabelledPictures", "batches", "find_pictures", "inputs"]

_GROCERY = "grocery_128"
_TYPES = (".jpg", ".jpeg", ".png", ".webp")
BATCH = 32


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledPictures:
    """Files to calibrate on, files to measure on with the class index of each, and what to call them."""

    name: str
    calibration: tuple[Path, ...]
    held_back: tuple[tuple[Path, int], ...]


def find_pictures(data: Path, labels: Sequence[str], family: str) -> LabelledPictures:
    """The pictures below ``data`` for a model of these labels.

    Raises InvalidArgument that names the layouts if there are none, or if a class is not one of the labels.
    """
    if family == "grocery" and (data / _GROCERY).is_dir():
        folder = data / _GROCERY
        return LabelledPictures(
            _GROCERY,
            tuple(folder / row["image"] for row in grocery_rows(data, "train")),
            tuple((folder / row["image"], int(row["fine_id"])) for row in grocery_rows(data, "test")),
        )
    index = {label: position for position, label in enumerate(labels)}
    found: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    for split, pictures in found.items():
        for path in sorted((data / split).glob("*/*")):
            if path.suffix.lower() not in _TYPES:
                continue
            if path.parent.name not in index:
                raise InvalidArgument(f"{split}/{path.parent.name} is no label of the model", param="data")
            pictures.append((path, index[path.parent.name]))
        if not pictures:
            raise InvalidArgument(
                f"no pictures at {data / split}; --data takes a folder with train/CLASS/*.jpg to calibrate "
                "on and test/CLASS/*.jpg to measure on",
                param="data",
            )
    return LabelledPictures(data.name, tuple(path for path, _ in found["train"]), tuple(found["test"]))


def inputs(paths: Sequence[Path], spec: Preprocessing) -> Iterator[np.ndarray]:
    """Each picture as the network takes it, (1, 3, S, S) fp32, by the path that serves."""
    for path in paths:
        yield preprocess(decode_image(path.read_bytes(), target=spec.target), spec)[None]


def batches(
    pictures: Sequence[tuple[Path, int]], spec: Preprocessing
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs (B, 3, S, S), classes (B,)) of at most :data:`BATCH`, in order."""
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        yield (
            np.concatenate(list(inputs([path for path, _ in part], spec))),
            np.array([label for _, label in part]),
        )
