"""What a benchmark's expressions are like: how many, how long, of what; and accuracy by length, source,
kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.ref_l4.annotations import Annotation
from nonet.research.ref_l4.metrics import accuracy, category_of, mean_accuracy

__all__ = ["breakdown", "source_of", "statistics"]

#: Upper ends of the bins of words, the last open.
_LENGTHS: Final = (5, 10, 20, 30, 50)
_COCO: Final = "refcoco_"


def statistics(annotations: Sequence[Annotation]) -> dict[str, Any]:
    """A row of the paper's table 3: pictures, instances, expressions, categories, words, sizes, vocabulary.

    The vocabulary is the number of distinct lower-cased tokens between white space.
    """
    words = [row.words for row in annotations]
    sizes = [row.size for row in annotations if not row.nothing]
    pictures = [(row.width * row.height) ** 0.5 for row in annotations if row.width and row.height]
    lengths = [len(each) for each in words]
    return {
        "images": len({row.image for row in annotations}),
        "instances": len({(row.image, row.instance) for row in annotations if row.instance}),
        "annotations": len(annotations),
        "categories": len({row.category for row in annotations if row.category}),
        "mean_words": float(np.mean(lengths)) if lengths else 0.0,
        "fewest_words": min(lengths, default=0),
        "most_words": max(lengths, default=0),
        "vocabulary": len({token for each in words for token in each}),
        "instance_size": [min(sizes, default=0.0), max(sizes, default=0.0)],
        "image_size": [min(pictures, default=0.0), max(pictures, default=0.0)],
        "commonest_words": Counter(token for each in words for token in each).most_common(20),
    }


def source_of(row: Annotation) -> str:
    """``COCO``, ``O365-P1`` (Objects365, of a category that COCO has too) or ``O365-P2`` (specification,
    2.5)."""
    if row.category.startswith(_COCO):
        return "COCO"
    return "O365-P1" if row.category in _shared_categories() else "O365-P2"


def _shared_categories() -> frozenset[str]:
    return frozenset(category_of(f"{_COCO}{number}") for number in range(1, 91))


def breakdown(annotations: Sequence[Annotation], ious: NDArray[np.float32]) -> dict[str, dict[str, Any]]:
    """Accuracy at 0.5, mAcc and the number of rows: by source, by length of the expression, by kind, by
    rephrasing, and by category."""
    cuts: dict[str, Callable[[Annotation], str]] = {
        "source": lambda row: source_of(row) if row.category else "",
        "words": lambda row: _length_bin(len(row.words)),
        "kind": lambda row: row.kind,
        "written": lambda row: "rephrased" if row.rewritten else "first",
        "category": lambda row: category_of(row.category),
    }
    found = {}
    for name, of in cuts.items():
        groups = [of(row) for row in annotations]
        found[name] = {
            group: _figures(ious[[index for index, each in enumerate(groups) if each == group]])
            for group in sorted(set(groups), key=lambda each: (len(each), each))
            if group
        }
    return found


def _length_bin(count: int) -> str:
    low = 0
    for high in _LENGTHS:
        if count <= high:
            return f"{low + 1}-{high}"
        low = high
    return f"over {low}"


def _figures(ious: NDArray[np.float32]) -> dict[str, Any]:
    return {"count": len(ious), "acc50": accuracy(ious, 0.5), "macc": mean_accuracy(ious)}
