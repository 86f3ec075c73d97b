"""One capture as the sensor gave it, whatever file it came in."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from nonet.runtime.tensors import Array
from nonet.services.raw_image.colour_models import ColourModel
from nonet.services.raw_image.shot import NO_SHOT, Shot

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
        white: level of saturation at the same places; each above its black level.
        orientation: EXIF orientation, 1 to 8: how to turn the finished picture upright.
        gains: the camera's white balance for R, G, B with G = 1, None if the file has none.
        colours: how its colours relate to those of the world, None if unknown.
        shot: what the file says of how it was taken.
        source: what it was read from, e.g. ``camera file`` or ``PNG mosaic``.
    """

    mosaic: Array
    cfa: str
    black: tuple[float, float, float, float]
    white: tuple[float, float, float, float]
    orientation: int = 1
    gains: tuple[float, float, float] | None = None
    colours: ColourModel | None = None
    shot: Shot = NO_SHOT
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
        return self._by_plane(self.black)

    @property
    def plane_white(self) -> Array:
        """Level of saturation of the same planes, float32 (4,)."""
        return self._by_plane(self.white)

    def _by_plane(self, levels: tuple[float, float, float, float]) -> Array:
        down, right = self.shift
        order = [2 * ((row + down) % 2) + (column + right) % 2 for row in (0, 1) for column in (0, 1)]
        return np.array([levels[index] for index in order], dtype=np.float32)
