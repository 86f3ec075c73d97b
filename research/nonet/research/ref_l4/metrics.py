"""Ref-L4's metrics: accuracy over IoU thresholds, by size of the object, and averaged over categories.

Equal to the official evaluator (specification, section 3): an IoU at a threshold is a miss, sizes of 128
and 256 pixels are medium, mAcc is the mean over 0.50, 0.55, ..., 0.95.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.ref_l4.annotations import Annotation

__all__ = ["MACC", "Thresholds", "accuracy", "category_of", "mean_accuracy", "metrics"]

MACC: Final = tuple(each / 100 for each in range(50, 100, 5))
_RANGE: Final = "0.5:0.95"
_BANDS: Final = ("Small", "Medium", "Large")


@dataclass(frozen=True)
class Thresholds:
    """Of IoU for each level, and the sizes in pixels that bound the bands."""

    annotations: tuple[float, ...] = (0.5, 0.75, 0.9)
    sizes: tuple[float, ...] = (0.5,)
    categories: tuple[float, ...] = (0.5,)
    small: float = 128
    large: float = 256


def accuracy(ious: NDArray[np.float32], threshold: float) -> float:
    """Percent of the rows whose IoU is above the threshold; nan for no rows."""
    return (
        100 * float(np.count_nonzero(ious > np.float32(threshold))) / len(ious) if len(ious) else float("nan")
    )


def mean_accuracy(ious: NDArray[np.float32]) -> float:
    """Mean of the accuracies at 0.50 to 0.95."""
    return float(np.mean([accuracy(ious, each) for each in MACC]))


@cache
def _official_categories() -> Mapping[str, str]:
    content = files(__package__).joinpath("category_map.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(content)
    return found


#: What the official map sends three pairs of COCO's classes and one unknown class to, and what is right.
_CORRECTED: Final = frozenset({"o365_56", "o365_26", "o365_98", "o365_100000"})


def category_of(category: str, strict_official: bool = True) -> str:
    """The category under which a row counts in the average over categories.

    COCO's are replaced by those of Objects365 as officially; by that map three pairs of COCO's classes become
    one, and one class becomes a placeholder (specification, section 3.4). Without ``strict_official`` those
    seven keep their own names.
    """
    found = _official_categories().get(category, category)
    return category if not strict_official and found in _CORRECTED else found


def metrics(
    annotations: Sequence[Annotation],
    ious: NDArray[np.float32],
    thresholds: Thresholds | None = None,
    *,
    strict_official: bool = True,
) -> dict[str, Any]:
    """The official dictionary, in the official order; a band without rows has None.

    Args:
        annotations: of the split; {} for none.
        ious: float32 [N], in the same order.
        thresholds: of the official evaluator's options.
        strict_official: see :func:`category_of`.
    """
    if not annotations:
        return {}
    wanted = thresholds or Thresholds()
    found: dict[str, Any] = {}
    for each in wanted.annotations:
        found[f"Ann-level acc iou {each}"] = accuracy(ious, each)
    found[f"Ann-level macc iou {_RANGE}"] = mean_accuracy(ious)
    _copied(found, "Ann-level accs for copy", list(found))
    band = _bands(annotations, wanted)
    names = []
    for number, name in enumerate(_BANDS):
        inside = ious[band == number]
        for each in wanted.sizes:
            names.append(f"{name} acc iou {each}")
            found[names[-1]] = accuracy(inside, each) if len(inside) else None
        names.append(f"{name} macc iou {_RANGE}")
        found[names[-1]] = mean_accuracy(inside) if len(inside) else None
    _copied(found, "Size level accs for copy", names)
    names = []
    group, counts = _groups(annotations, strict_official)
    for each in wanted.categories:
        names.append(f"Average class-level acc iou {each}")
        found[names[-1]] = _over_categories(ious, each, group, counts)
    names.append(f"Average class-level macc iou {_RANGE}")
    found[names[-1]] = float(np.mean([_over_categories(ious, each, group, counts) for each in MACC]))
    _copied(found, "Avg class-level accs for copy", names)
    return found


def _copied(found: dict[str, Any], name: str, names: Sequence[str]) -> None:
    found[name] = [None if found[each] is None else round(found[each], 2) for each in names]


def _bands(annotations: Sequence[Annotation], wanted: Thresholds) -> NDArray[np.int64]:
    """0, 1 or 2 for each row."""
    sizes = np.array([row.size for row in annotations])
    return np.where(sizes < wanted.small, 0, np.where(sizes > wanted.large, 2, 1))


def _groups(
    annotations: Sequence[Annotation], strict_official: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each row's category, and how many rows each category has."""
    names = [category_of(row.category, strict_official) for row in annotations]
    _, group, counts = np.unique(np.array(names), return_inverse=True, return_counts=True)
    return group, counts


def _over_categories(
    ious: NDArray[np.float32], threshold: float, group: NDArray[np.int64], counts: NDArray[np.int64]
) -> float:
    hits = np.bincount(group, weights=ious > np.float32(threshold), minlength=len(counts))
    return float(np.mean(100 * hits / counts))
