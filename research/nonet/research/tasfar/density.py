"""How labels are distributed at a site, by the confident predictions alone: a map over cells of the label
space.

Each prediction is a normal distribution cut off at three standard deviations, whose mass falls into cells;
the map is the mean of the masses of the confident ones (specification, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.special import ndtr

__all__ = ["DensityMap", "Grid", "Mass", "density_map", "grid_for", "mass_of", "relative_shares"]

#: Standard deviations at which a prediction's distribution is cut off.
REACH: Final = 3.0
_ROUNDING: Final = 1e-9  # of a place in cells
#: Most cells along an axis; wider ones are taken beyond that.
MOST_CELLS: Final = 4096
_RATIO_FLOOR: Final = 0.1  # of the mean share


@dataclass(frozen=True)
class Grid:
    """Cells of equal width along each axis.

    Args:
        origins: left edge of the first cell of each axis.
        width: of a cell, in the label's units.
        counts: cells of each axis.
    """

    origins: tuple[float, ...]
    width: float
    counts: tuple[int, ...]

    @property
    def cells(self) -> int:
        """How many there are."""
        return int(np.prod(self.counts))

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Middles of the cells of an axis."""
        middles = np.arange(self.counts[axis], dtype=np.float64) + 0.5
        return np.asarray(self.origins[axis] + self.width * middles, dtype=np.float64)


@dataclass(frozen=True)
class Mass:
    """The mass of one prediction along each axis: the first cell that has some, and the masses from there
    on."""

    firsts: tuple[int, ...]
    parts: tuple[NDArray[np.float64], ...]

    @property
    def window(self) -> tuple[slice, ...]:
        """The cells with mass."""
        return tuple(
            slice(first, first + len(part)) for first, part in zip(self.firsts, self.parts, strict=True)
        )

    @property
    def joint(self) -> NDArray[np.float64]:
        """The product of the axes' masses over the window."""
        found = self.parts[0]
        for part in self.parts[1:]:
            found = np.multiply.outer(found, part)
        return found


@dataclass(frozen=True)
class DensityMap:
    """The share of confident labels in each cell of a grid; adds up to one."""

    grid: Grid
    shares: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The global mean density: one over the number of cells."""
        return 1.0 / self.grid.cells


def grid_for(predictions: ArrayLike, deviations: ArrayLike, width: float) -> Grid:
    """Cells from the least of ``prediction - 3 deviation`` upward until they cover the largest of
    ``prediction + 3 deviation``.

    Args:
        predictions: [N] or [N, D].
        deviations: [N].
        width: of a cell; it grows where an axis would have more than 4,096.

    Raises ValueError for no predictions, or a width that is not above 0.
    """
    rows = _rows(predictions)
    spread = REACH * np.asarray(deviations, dtype=np.float64)[:, None]
    if not len(rows) or not np.isfinite(width) or width <= 0:
        raise ValueError("a grid needs predictions, and a width above 0")
    low, high = (rows - spread).min(0), (rows + spread).max(0)
    width = max(width, float((high - low).max()) / MOST_CELLS)
    counts = np.maximum(1, np.ceil((high - low) / width - 1e-12)).astype(int)
    return Grid(tuple(low.tolist()), float(width), tuple(counts.tolist()))


def mass_of(prediction: Sequence[float] | float, deviation: float, grid: Grid) -> Mass:
    """Where the label of a prediction may lie.

    The tails beyond the outermost edges inside the reach go to the cells beside them, and are lost where
    there is none; without an edge inside, all of it is in one cell, the nearest of the grid.
    """
    firsts, parts = [], []
    for axis, centre in enumerate(np.atleast_1d(np.asarray(prediction, dtype=np.float64))):
        first, part = _along(float(centre), deviation, grid.origins[axis], grid.width, grid.counts[axis])
        firsts.append(first)
        parts.append(part)
    return Mass(tuple(firsts), tuple(parts))


def density_map(predictions: ArrayLike, deviations: ArrayLike, grid: Grid) -> DensityMap:
    """The map of confident predictions [N] or [N, D] with their deviations [N]."""
    shares = np.zeros(grid.counts)
    rows = _rows(predictions)
    for row, deviation in zip(rows, np.asarray(deviations, dtype=np.float64), strict=True):
        mass = mass_of(row, float(deviation), grid)
        shares[mass.window] += mass.joint
    return DensityMap(grid, shares / len(rows))


def relative_shares(known: DensityMap, source: DensityMap) -> NDArray[np.float64]:
    """How much more often a label lies in each cell of ``known`` than it did at the source.

    A network's prediction already knows how labels were distributed where it learnt: by Bayes' rule the
    posterior at another site takes the ratio of the two distributions, where the published recipe takes the
    site's alone and counts the source's twice. Both are raised a little, so that the ratio is one where
    neither has labels. The source's map may have other cells; between their middles it is interpolated.
    """
    axes = [source.grid.centres(axis) for axis in range(source.shares.ndim)]
    padded = [np.concatenate([[a[0] - source.grid.width], a, [a[-1] + source.grid.width]]) for a in axes]
    density = np.pad(source.shares, 1) / source.grid.width**source.shares.ndim
    look = RegularGridInterpolator(padded, density, bounds_error=False, fill_value=0.0)
    centres = np.meshgrid(*(known.grid.centres(axis) for axis in range(known.shares.ndim)), indexing="ij")
    theirs = look(np.stack([each.ravel() for each in centres], 1)).reshape(known.shares.shape)
    theirs = theirs * known.grid.width**known.shares.ndim
    floor = _RATIO_FLOOR * known.mean
    return np.asarray((known.shares + floor) / (theirs + floor), dtype=np.float64)


def _along(
    centre: float, deviation: float, origin: float, width: float, count: int
) -> tuple[int, NDArray[np.float64]]:
    """First cell and masses along one axis."""
    low = (centre - REACH * deviation - origin) / width
    high = (centre + REACH * deviation - origin) / width
    # Inner edges e with low < e < high, as numbers of edges; one that is only there by rounding is not
    # inside.
    first, last = int(np.floor(low + _ROUNDING)) + 1, int(np.ceil(high - _ROUNDING)) - 1
    first, last = max(first, 0), min(last, count)
    if last < first:
        cell = int(np.clip(np.floor((centre - origin) / width), 0, count - 1))
        return cell, np.ones(1)
    edges = origin + width * np.arange(first, last + 1)
    below = ndtr((edges - centre) / deviation)
    masses = np.diff(np.concatenate([[0.0], below, [1.0]]))
    start = first - 1
    if last == count:  # nothing lies right of the last edge
        masses = masses[:-1]
    if start < 0:  # nor left of the first
        masses, start = masses[1:], 0
    return start, masses


def _rows(values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    return found[:, None] if found.ndim == 1 else found
