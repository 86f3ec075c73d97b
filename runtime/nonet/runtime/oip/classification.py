"""The protocol's classification extension: a tensor of scores becomes its best classes as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.fields import shown
from nonet.runtime.tensors import Array, DataType, Tensor


def top_classes(scores: Array, k: int) -> Array:
    """Indices of the ``k`` best scores of each row, best first; equal scores in the order of their index.

    ``scores`` is [N, C] of numbers without NaN; the result is int64 [N, min(k, C)].
    """
    classes = scores.shape[1]
    # Sorting the mirrored rows stably and mirroring back puts the lower index first among equals, and needs
    # no negation, which would overflow for integers.
    order: Array = np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]
    best: Array = (classes - 1 - order)[:, : min(k, classes)].astype(np.int64)
    return best


def classify_output(tensor: Tensor, k: int, labels: Sequence[str] = ()) -> Tensor:
    """The ``k`` best classes of a tensor of scores, as BYTES ``score:index`` or ``score:index:label``.

    Args:
        tensor: scores [C], or [N, ...] with all but the first dimension taken as one row of classes.
        k: how many classes, at least 1; more than there are gives all.
        labels: names by index; an index without a name gets none.

    Returns:
        BYTES [min(k, C)] or [N, min(k, C)], best first. Scores are written with the fewest digits that read
        back as the same number.

    Raises:
        InvalidArgument: the tensor holds no numbers or has no dimension.
    """
    if tensor.datatype in (DataType.BYTES, DataType.BOOL) or not tensor.shape:
        raise InvalidArgument(
            f"output {shown(tensor.name)} is {tensor.datatype} of shape {list(tensor.shape)}; "
            "classification needs a vector of numbers",
            param=f"outputs.{tensor.name}.parameters.classification",
        )
    scores = tensor.data
    if tensor.datatype in (DataType.FP16, DataType.BF16):
        scores = scores.astype(np.float32)
    rows = 1 if scores.ndim == 1 else scores.shape[0]
    scores = scores.reshape(rows, scores.size // rows if rows else 0)
    best = top_classes(scores, k)
    text = [
        f"{_written(scores[row, index])}:{index}:{labels[index]}"
        if index < len(labels) and labels[index]
        else f"{_written(scores[row, index])}:{index}"
        for row, index in zip(np.repeat(np.arange(rows), best.shape[1]), best.ravel(), strict=True)
    ]
    shape = (best.shape[1],) if tensor.data.ndim == 1 else best.shape
    return Tensor.of_bytes(tensor.name, [item.encode() for item in text], tuple(shape))


def _written(score: Any) -> str:
    """A number with the fewest digits that read back as the same one, whatever numpy's print options."""
    if not isinstance(score, np.floating):
        return str(int(score))
    if score == 0 or 1e-4 <= abs(score) < 1e16:
        return np.format_float_positional(score, unique=True, trim="0")
    return np.format_float_scientific(score, unique=True, trim="0")
