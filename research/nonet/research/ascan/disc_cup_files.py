"""Optic disc and cup: the photographs of Drishti-GS1, their outlines, and which of them are for what.

Drishti-GS1: J. Sivaswamy et al., ISBI 2014 and JSM Biomedical Imaging 2015; research use. The folder
`drishti_gs` holds `index.csv`, `images/ID.jpg` and `masks/ID.png` (0 background, 1 rim of the disc, 2 cup; a
pixel counts when three of the four experts marked it). Imports no torch.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

FOLDER = "drishti_gs"
LABELS = ("optic disc", "optic cup")
_SEED = 20261130
_HELD_BACK = 9
SPLITS = ("train", "val", "test")


def photographs(root: Path, split: str) -> list[str]:
    """Names of the photographs of a split, in order: 9 of the 86 drawn at random are `test`, measured once, 9
    are `val`, by which training is chosen, the others `train`. The data set does not say whose eyes they are,
    so a photograph is the unit. Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    with (root / FOLDER / "index.csv").open(newline="", encoding="utf-8") as source:
        names = sorted(row["id"] for row in csv.DictReader(source))
    random.Random(_SEED).shuffle(names)
    parts = (names[2 * _HELD_BACK :], names[_HELD_BACK : 2 * _HELD_BACK], names[:_HELD_BACK])
    return sorted(parts[SPLITS.index(split)])


def picture_file(root: Path, name: str) -> Path:
    return root / FOLDER / "images" / f"{name}.jpg"


def masks(root: Path, name: str) -> npt.NDArray[np.bool_]:
    """[2, height, width]: the disc, the cup within it."""
    with Image.open(root / FOLDER / "masks" / f"{name}.png") as stored:
        marked = np.asarray(stored)
    return np.stack([marked >= 1, marked >= 2])


def dice(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) of two masks; 1 where both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0
