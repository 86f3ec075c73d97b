"""A picture made from nothing, to measure and to try services of pictures with."""

from __future__ import annotations

import functools
import io
from typing import Final

import numpy as np
from PIL import Image

_SIZE: Final = (640, 480)


@functools.cache
def sample_picture() -> bytes:
    """A JPEG of 640 x 480 pixels with the detail of a photograph, the same on every call."""
    random = np.random.default_rng(14)
    shapes = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(_SIZE)
    grain = random.integers(-10, 11, (*reversed(_SIZE), 1), dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(shapes, np.int16) + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()
