"""One capture as the sensor gave it, whatever file it came in."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt

from nonet.runtime.tensors import Array

PATTERNS: Final = ("RGGB", "GRBG", "GBRG", "BGGR")
"""The four Bayer phases: colours at (0, 0), (0, 1), (1, 0), (1, 1)."""

FARTHEST: Final = 8.0
"""Samples count as no farther from black than this many times the range from black to white: networks are not
asked about what no sensor gives, such as samples under levels that are not theirs."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """A Bayer mosaic and what its file says of it.

    Args:
        mosaic: samples [height, width], uint16 or float32, of the visible area.
        cfa: one of :data:`PATTERNS`.
        black: level of no light at (0, 0), (0, 1), (1, 0), (1, 1) of the pattern.
        white: level of saturation; above every black level.
        orientation: EXIF orientation 1, 3, 6 or 8: how to turn the picture upright.
        gains: the camera's white balance for R, G, B with G = 1, None if the file has none.
        matrix: XYZ (D65) to camera RGB, shape (3, 3), None if unknown.
        source: what it was read from, e.g. ``camera file`` or ``PNG mosaic``.
    """

    mosaic: Array
    cfa: str
    black: tuple[float, float, float, float]
    white: float
    orientation: int = 1
    gains: tuple[float, float, float] | None = None
    matrix: npt.NDArray[np.float64] | None = None
    source: str = ""

    @property
    def height(self) -> int:
        return int(self.mosaic.shape[0])

    @property
    def width(self) -> int:
        return int(self.mosaic.shape[1])

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def shift(self) -> tuple[int, int]:
        """Rows and columns to put in front of the mosaic so that it starts with R, as RGGB does."""
        row, column = divmod(self.cfa.index("R"), 2)
        return row, column

    @property
    def plane_black(self) -> Array:
        """Black level of the planes R, G1, G2, B of the shifted mosaic, float32 (4,)."""
        down, right = self.shift
        order = [2 * ((row + down) % 2) + (column + right) % 2 for row in (0, 1) for column in (0, 1)]
        return np.array([self.black[index] for index in order], dtype=np.float32)
