"""Masks as a picture to be laid over the photograph: a PNG with a palette, transparent where no mask is."""

from __future__ import annotations

import colorsys
import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["CONTENT_TYPE", "colour", "overlay_png"]

CONTENT_TYPE: Final = "image/png"
_OPACITY: Final = 150
_FIRST: Final = 0.5  # cyan: red would not be seen on much of what is photographed
_TURN: Final = 0.61803398875
"""Golden ratio: hues that follow each other in steps of it are far apart, however many there are."""


def colour(index: int) -> tuple[int, int, int]:
    """Red, green and blue of class ``index``, from 0; the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((_FIRST + index * _TURN) % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def overlay_png(index_map: npt.NDArray[np.uint8], classes: int) -> bytes:
    """The PNG of an index map [height, width]: 0 is transparent, class ``index`` has the number index + 1."""
    image = Image.fromarray(index_map)
    image.putpalette([0, 0, 0, *(part for index in range(classes) for part in colour(index))])
    buffer = io.BytesIO()
    opacities = bytes([0] + [_OPACITY] * classes)
    image.save(buffer, "PNG", transparency=opacities, compress_level=3)
    return buffer.getvalue()
