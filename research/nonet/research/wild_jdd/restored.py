"""What a restoration gives: the picture, how far off it may be, and how noisy the capture was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Restored:
    """Maps (N, 3, H, W) on the mosaic's [0, 1] scale.

    Attributes:
        image: the picture, not clipped.
        std: standard deviation of its error.
        noise: standard deviation of the sensor noise.
    """

    image: Tensor
    std: Tensor
    noise: Tensor


Restorer = Callable[[Tensor], Restored]  # RGGB mosaics (N, 1, H, W) -> Restored
