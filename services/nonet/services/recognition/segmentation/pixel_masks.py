"""From a network's coarse logits to masks of a picture's own pixels, with bounded work and memory.

The logits are interpolated to the picture's pixels, or, for a picture of more than two million, to a grid of
about that many, whose places then stand for the pixels they cover. A network's map has few rows, and between
two of them the interpolated values are linear, so the runs of a mask stay few however large the picture is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from nonet.runtime.tensors import Array

__all__ = ["MaskKind", "PixelMasks", "pixel_masks"]

MaskKind = Literal["exclusive", "independent"]
"""``exclusive``: each place is of one class, the first class is the background and gets no mask.
``independent``: each class has a mask of its own, where its logit is above 0; masks may overlap."""

_FINEST: Final = 1 << 21
_STRIP: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class PixelMasks:
    """The masks of one picture.

    Args:
        grid: bool [classes, rows, columns], at most as fine as the pixels.
        width, height: of the picture.
    """

    grid: npt.NDArray[np.bool_]
    width: int
    height: int

    def strips(self, index: int) -> Iterator[npt.NDArray[np.bool_]]:
        """The pixels of one class's mask, column by column, some columns at a time; none if it is empty."""
        mask = self.grid[index]
        rows, columns = self._places()
        step = max(1, _STRIP // self.height)
        for start in range(0, self.width, step):
            part = mask[:, columns[start : start + step]][rows]
            yield part.ravel(order="F")

    def index_map(self) -> npt.NDArray[np.uint8]:
        """uint8 [height, width]: 0 where no mask is, else the number of the last class whose mask is there,
        from 1."""
        coarse = np.zeros(self.grid.shape[1:], dtype=np.uint8)
        for index, mask in enumerate(self.grid, 1):
            coarse[mask] = index
        rows, columns = self._places()
        return coarse[rows[:, None], columns]

    def _places(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The row of the grid that each row of pixels is of, and the column of each column."""
        _, rows, columns = self.grid.shape
        return _covering(self.height, rows), _covering(self.width, columns)


def pixel_masks(logits: Array, width: int, height: int, kind: MaskKind) -> PixelMasks:
    """The masks of a picture of width x height pixels, whose whole the logits FP32 [C, h, w] cover.

    Of ``exclusive`` classes the background has no mask, so there are C - 1.
    """
    shrink = min(1.0, (_FINEST / (width * height)) ** 0.5)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    fine = np.stack([_interpolated(layer, size) for layer in logits])
    if kind == "independent":
        return PixelMasks(fine > 0, width, height)
    best = fine.argmax(axis=0)
    return PixelMasks(np.stack([best == index for index in range(1, len(logits))]), width, height)


def _interpolated(layer: Array, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bilinear between the centres of places; where it shrinks, the mean of what a place covers."""
    image = Image.fromarray(np.ascontiguousarray(layer, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _covering(pixels: int, places: int) -> npt.NDArray[np.intp]:
    """For each pixel the place that holds its centre."""
    return (2 * np.arange(pixels, dtype=np.intp) + 1) * places // (2 * pixels)
