"""A capture as tiles of the network's size that overlap by its halo, so that no seam can show.

The network's answer for a pixel depends on the samples within its halo only. Tiles are laid so that their
inner parts cover the capture exactly once and each has a full halo of samples around it; at the border the
capture is mirrored without repeating its edge, which keeps the Bayer phase. Every tile starts on R.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nonet.runtime.tensors import Array


@dataclasses.dataclass(frozen=True, slots=True)
class TileForm:
    """Tiles of ``size`` x ``size`` pixels of which the outer ``halo`` pixels are context.

    Raises ValueError for sizes that are odd or leave nothing inside.
    """

    size: int
    halo: int

    def __post_init__(self) -> None:
        if self.size < 4 or self.size % 2 or self.halo < 0 or self.core < 2:
            raise ValueError(f"a tile of {self.size} pixels with a halo of {self.halo} leaves nothing inside")

    @property
    def margin(self) -> int:
        """The halo, rounded up to keep the phase."""
        return self.halo + self.halo % 2

    @property
    def core(self) -> int:
        """Pixels of the inner part along a side."""
        return self.size - 2 * self.margin


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """Where the inner part of one tile lies: ``rows`` and ``columns`` of the capture, and ``inner_rows`` and
    ``inner_columns`` of the tile that belong there; ``top`` and ``left`` are where the whole tile starts."""

    top: int
    left: int
    rows: slice
    columns: slice
    inner_rows: slice
    inner_columns: slice


@dataclasses.dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of a capture of ``height`` x ``width`` whose first R lies ``shift`` away from its corner."""

    form: TileForm
    height: int
    width: int
    shift: tuple[int, int]

    @property
    def _grid(self) -> tuple[int, int]:
        core = self.form.core
        return -(-(self.height + self.shift[0]) // core), -(-(self.width + self.shift[1]) // core)

    @property
    def count(self) -> int:
        """Number of tiles."""
        rows, columns = self._grid
        return rows * columns

    def tile(self, index: int) -> Tile:
        """The tile of that number, row by row."""
        row, column = divmod(index, self._grid[1])
        top, rows, inner_rows = self._span(row, self.shift[0], self.height)
        left, columns, inner_columns = self._span(column, self.shift[1], self.width)
        return Tile(top, left, rows, columns, inner_rows, inner_columns)

    def _span(self, index: int, shift: int, length: int) -> tuple[int, slice, slice]:
        core, margin = self.form.core, self.form.margin
        start = index * core - shift
        first, last = max(start, 0), min(start + core, length)
        return start - margin, slice(first, last), slice(first - start + margin, last - start + margin)

    def cut(self, mosaic: Array, index: int) -> Array:
        """The samples [size, size] of a tile, mirrored where it reaches beyond the capture."""
        tile, size = self.tile(index), self.form.size
        bottom, right = tile.top + size, tile.left + size
        if tile.top >= 0 and tile.left >= 0 and bottom <= self.height and right <= self.width:
            return mosaic[tile.top : bottom, tile.left : right]
        rows, columns = self.sources(index)
        return mosaic[rows[:, None], columns]

    def sources(self, index: int) -> tuple[Array, Array]:
        """Which rows and columns [size] of the capture the samples of a tile are from."""
        tile, size = self.tile(index), self.form.size
        return (
            mirrored(np.arange(tile.top, tile.top + size), self.height),
            mirrored(np.arange(tile.left, tile.left + size), self.width),
        )


def mirrored(positions: Array, length: int) -> Array:
    """Positions folded into 0..length-1 by mirroring at the ends; keeps even and odd apart."""
    period = 2 * (length - 1)
    folded = np.mod(positions, period)
    nearest: Array = np.minimum(folded, period - folded)
    return nearest


def packed(tile: Array) -> Array:
    """The planes R, G1, G2, B of a tile [size, size] that starts on R: a view, float32 or as it is."""
    size = tile.shape[0] // 2
    return tile.reshape(size, 2, size, 2).transpose(1, 3, 0, 2).reshape(4, size, size)


def spread(planes: Array) -> Array:
    """Planes [N, 4, S, S] bilinearly filled in to [N, 3, 2S, 2S]: each colour where it was sampled is kept.

    Edges are mirrored. This is the plain bilinear interpolation of a Bayer mosaic.
    """
    count, _, side, _ = planes.shape
    full = np.zeros((count, 3, 2 * side + 2, 2 * side + 2), dtype=np.float32)
    full[:, 0, 1:-1:2, 1:-1:2] = planes[:, 0]
    full[:, 1, 1:-1:2, 2:-1:2] = planes[:, 1]
    full[:, 1, 2:-1:2, 1:-1:2] = planes[:, 2]
    full[:, 2, 2:-1:2, 2:-1:2] = planes[:, 3]
    full[:, :, 0], full[:, :, -1] = full[:, :, 2], full[:, :, -3]
    full[:, :, :, 0], full[:, :, :, -1] = full[:, :, :, 2], full[:, :, :, -3]
    middle: Array = full[:, :, 1:-1, 1:-1]
    beside = full[:, :, 1:-1, :-2] + full[:, :, 1:-1, 2:]
    above = full[:, :, :-2, 1:-1] + full[:, :, 2:, 1:-1]
    out: Array = middle + np.float32(0.5) * (beside + above)
    out[:, 1] = middle[:, 1] + np.float32(0.25) * (beside[:, 1] + above[:, 1])
    for channel in (0, 2):
        corners = full[:, channel, :-2, :-2] + full[:, channel, :-2, 2:]
        corners += full[:, channel, 2:, :-2] + full[:, channel, 2:, 2:]
        out[:, channel] += np.float32(0.25) * corners
    return out
