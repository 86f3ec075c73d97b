"""The density map without cells: a sum of normal distributions, one for each confident prediction.

The posterior of an uncertain prediction is then a sum of normal distributions as well, and its mean has a
closed form: each confident prediction proposes the precision-weighted mean of the two, and counts by how
likely it makes the uncertain one. It is the limit of the grid for cells of no width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["kernel_means"]

_ROWS_AT_ONCE = 256


def kernel_means(
    uncertain: NDArray[np.float64],
    uncertain_deviations: NDArray[np.float64],
    confident: NDArray[np.float64],
    confident_deviations: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Posterior means [N, D].

    Args:
        uncertain, confident: predictions [N, D] and [M, D].
        uncertain_deviations, confident_deviations: [N] and [M], the same along each axis.
    """
    found = np.empty_like(uncertain)
    theirs = confident_deviations[None] ** 2
    for first in range(0, len(uncertain), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        rows, ours = uncertain[part], uncertain_deviations[part, None] ** 2
        both = ours + theirs
        squared = ((rows[:, None] - confident[None]) ** 2).sum(2)
        logarithm = -0.5 * squared / both - 0.5 * rows.shape[1] * np.log(both)
        weights = np.exp(logarithm - logarithm.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        own = (weights * theirs / both).sum(1, keepdims=True)
        found[part] = own * rows + (weights * ours / both) @ confident
    return found
