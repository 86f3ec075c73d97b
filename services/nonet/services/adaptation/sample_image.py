"""An image made from nothing, for the warm-up of regressors that take images."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

__all__ = ["sample_image"]


@functools.cache
def sample_image(side: int) -> bytes:
    """A PNG of ``side`` pixels with slowly changing colours."""
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    return out.getvalue()
