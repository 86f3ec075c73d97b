"""The answer of a grounding service as tensors: the same for every kind of network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from nonet.runtime.boxes import suppress
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.grounding.names import BOXES, LABELS, MOST_INSTANCES, NOTHING, SCORES, SIZE

__all__ = ["OUTPUTS", "SAME", "Kept", "best", "outputs_of"]

OUTPUTS: Final = (
    TensorSpec(BOXES, DataType.FP32, (-1, -1, MOST_INSTANCES, 4)),
    TensorSpec(SCORES, DataType.FP32, (-1, -1, MOST_INSTANCES)),
    TensorSpec(LABELS, DataType.BYTES, (-1, -1, MOST_INSTANCES)),
    TensorSpec(NOTHING, DataType.FP32, (-1, -1)),
    TensorSpec(SIZE, DataType.INT64, (-1, 2)),
)
SAME: Final = 0.7
"""Intersection over union from which two boxes are one thing, whatever they are called."""

Kept = tuple[Array, Array, list[bytes], float]
"""Of one expression: boxes [K, 4] inside the picture and scores [K], best first, padded with zeros; labels
and the score of nothing."""


def best(boxes: Array, scores: Array, labels: Sequence[bytes], nothing: float, size: Array) -> Kept:
    """The best of the boxes of one expression.

    Args:
        boxes: (R, 4), corners in pixels of the picture.
        scores: (R,).
        labels: R of them.
        nothing: that nothing is meant.
        size: (2,), width and height of the picture.
    """
    kept = suppress(boxes, scores, np.zeros(len(scores), np.int64), SAME, MOST_INSTANCES)
    found, values = np.zeros((MOST_INSTANCES, 4), np.float32), np.zeros(MOST_INSTANCES, np.float32)
    found[: len(kept)] = boxes[kept].clip(0, np.tile(size, 2))
    values[: len(kept)] = scores[kept].clip(0, 1)
    named = [labels[row] for row in kept.tolist()]
    return found, values, named + [b""] * (MOST_INSTANCES - len(named)), nothing


def outputs_of(kept: Sequence[Kept], shape: tuple[int, int], sizes: Array) -> tuple[Tensor, ...]:
    """The outputs for ``shape`` pictures and expressions, picture after picture; sizes INT64 [N, 2]."""
    return (
        Tensor(BOXES, DataType.FP32, np.stack([boxes for boxes, _, _, _ in kept]).reshape(*shape, -1, 4)),
        Tensor(SCORES, DataType.FP32, np.stack([scores for _, scores, _, _ in kept]).reshape(*shape, -1)),
        Tensor.of_bytes(LABELS, [each for _, _, row, _ in kept for each in row], (*shape, MOST_INSTANCES)),
        Tensor(NOTHING, DataType.FP32, np.array([none for *_, none in kept], np.float32).reshape(shape)),
        Tensor(SIZE, DataType.INT64, sizes),
    )
