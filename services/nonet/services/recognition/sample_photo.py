"""Pictures made from nothing, with the size and detail of web photographs: to measure and to try networks."""

from __future__ import annotations

import functools
import io
from typing import Final

import numpy as np
from PIL import Image

_SIZE: Final = (640, 480)
_QUALITY: Final = 90


@functools.cache
def sample_photo(number: int = 0) -> bytes:
    """A JPEG of 640 x 480 pixels, the same on every call; another number gives another picture."""
    random = np.random.default_rng(number)
    width, height = _SIZE
    shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize(_SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = random.integers(-12, 13, (height, width, 1), dtype=np.int16)
    buffer = io.BytesIO()
    photo = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
    photo.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
