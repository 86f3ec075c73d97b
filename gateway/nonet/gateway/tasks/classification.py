"""What every face of the classification task has in common: its name, its bounds, the choice of the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nonet.runtime.tensors import Array

__all__ = ["DEFAULT_TOP_K", "MAX_TOP_K", "TASK", "best_classes"]

TASK = "classification"
DEFAULT_TOP_K = 5
MAX_TOP_K = 1000


def best_classes(scores: Array, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The ``count`` best of ``scores`` (C,), best first; of equal scores the lower index first.

    A class without a label is called by its index. The scores are exact: float32 values as float64.
    """
    count = min(count, scores.size)
    if count * 4 < scores.size:
        # Everything at least as good as the count-th best, so that ties are broken the same way as below.
        threshold = np.partition(scores, scores.size - count)[scores.size - count]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(scores.size)
    order = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return [
        {
            "index": index,
            "label": labels[index] if index < len(labels) else str(index),
            "score": score,
        }
        for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
    ]
