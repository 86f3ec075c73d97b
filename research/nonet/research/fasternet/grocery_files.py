"""Where the grocery data lies and what its tables say. Imports no torch.

The Grocery Store Dataset at 128 px (M. Klasson, C. Zhang, H. Kjellström, WACV 2019; MIT) has 81 fine and 43
coarse classes. Its folder holds `labels.csv` (image, split, fine_id, coarse_id) and `classes.csv` (fine_id,
fine, coarse_id, coarse). The data folder is named by NONET_DATA, else it is `../shared/data` beside the
working directory.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")

#: Pictures without labels used to teach the students general features: folder, file pattern, licence, origin.
EXTRA_PICTURES = (("fod_a_mini", "JPEGImages/*.jpg", "MIT", "FOD-A 2.1, arXiv 2110.03072, an excerpt"),)


@dataclass(frozen=True)
class Classes:
    """Names of the fine classes in index order, and the coarse class of each."""

    fine: tuple[str, ...]
    coarse: tuple[str, ...]
    coarse_of_fine: tuple[int, ...]


def data_root() -> Path:
    """The folder that holds the data sets. Raises FileNotFoundError with the way out if there is none."""
    named = os.environ.get("NONET_DATA")
    root = Path(named) if named else Path("../shared/data")
    if not root.is_dir():
        raise FileNotFoundError("no data folder: set NONET_DATA to the folder that holds grocery_128")
    return root


def grocery_rows(root: Path, split: str) -> list[dict[str, str]]:
    """Rows of `labels.csv` of one split, in file order. Raises ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    with (root / "grocery_128" / "labels.csv").open(newline="", encoding="utf-8") as source:
        return [row for row in csv.DictReader(source) if row["split"] == split]


def load_classes(root: Path) -> Classes:
    """The class names of the grocery data."""
    with (root / "grocery_128" / "classes.csv").open(newline="", encoding="utf-8") as source:
        rows = sorted(csv.DictReader(source), key=lambda row: int(row["fine_id"]))
    names = {int(row["coarse_id"]): row["coarse"] for row in rows}
    return Classes(
        fine=tuple(row["fine"] for row in rows),
        coarse=tuple(names[index] for index in sorted(names)),
        coarse_of_fine=tuple(int(row["coarse_id"]) for row in rows),
    )
