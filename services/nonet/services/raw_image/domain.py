"""The scale in which the network sees a capture.

The network has learnt from photographs in sRGB with noise of one strength. A capture that is linear in light
has neither that distribution nor that noise, so it is bent by

    f(z) = (sqrt(z + c) - sqrt(c)) / k,   k = sqrt(1 + c) - sqrt(c)   (f continues with its slope below z = 0)

With c = b / a this is the variance stabiliser of var = a z + b (F. J. Anscombe, Biometrika 35, 1948, in the
generalised form of Foi et al. 2008), and much like the transfer curve of sRGB. The mean of f(x) lies below
f(z) by a / (8 k sqrt(z + c)) to first order, so the exact inverse is followed by adding a / 4. For large c, f
is the identity. That is what a capture gets whose own values are wanted: nothing says that they are linear in
light, and on values that are not, bending lost 0.7 dB where it was wrong and won nothing where it was right.

Noise stronger than the network has seen is brought into its range by scaling the capture down.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from nonet.runtime.tensors import Array
from nonet.services.raw_image.noise import NoiseModel

STRONGEST: Final = 25 / 255
"""The largest standard deviation of noise that published networks are trained for."""
_PICTURE_OFFSETS: Final = (0.002, 0.05)
_DEFAULT_OFFSET: Final = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Domain:
    """Forth and back between levels (0 black, 1 white) and what the network sees.

    Args:
        offset: c of the module's text; ``math.inf`` for the identity.
        photon: a of the noise, for the bias of the inverse.
        scale: what f is multiplied by, at most 1.
    """

    offset: float = math.inf
    photon: float = 0.0
    scale: float = 1.0

    @classmethod
    def of_data(cls, noise: NoiseModel, told: float | None) -> Domain:
        """For values that are wanted in their own scale, whatever that is: never bent."""
        return cls(scale=_into_range(noise.sigma(noise.level) if told is None else told))

    @classmethod
    def of_light(cls, noise: NoiseModel, told: float | None) -> Domain:
        """For a capture that is linear in light and becomes a picture: always bent."""
        low, high = _PICTURE_OFFSETS
        offset = _DEFAULT_OFFSET
        if told is None and noise.known and noise.a > 0:
            offset = noise.b / noise.a
        model = noise if told is None else NoiseModel(0.0, told**2, noise.level)
        return cls._bent(min(max(offset, low), high), model)

    @classmethod
    def _bent(cls, offset: float, noise: NoiseModel) -> Domain:
        plain = cls(offset=offset, photon=noise.a)
        level = max(noise.level, 0.0)
        seen = noise.sigma(level) / (2 * plain._k * math.sqrt(level + offset))
        return cls(offset=offset, photon=noise.a, scale=_into_range(seen))

    @property
    def _k(self) -> float:
        return math.sqrt(1 + self.offset) - math.sqrt(self.offset)

    def forth(self, levels: Array) -> Array:
        """What the network sees of levels; float32 of the same shape."""
        if math.isinf(self.offset):
            return levels * np.float32(self.scale)
        root, k = math.sqrt(self.offset), self._k
        bent = (np.sqrt(np.maximum(levels, 0) + np.float32(self.offset)) - np.float32(root)) * np.float32(
            1 / k
        )
        below = np.minimum(levels, 0) * np.float32(0.5 / (k * root))
        return (bent + below) * np.float32(self.scale)

    def back(self, values: Array) -> Array:
        """Levels of what the network answered."""
        seen = values * np.float32(1 / self.scale)
        if math.isinf(self.offset):
            return seen
        root, k = math.sqrt(self.offset), self._k
        shifted = np.maximum(seen, 0) * np.float32(k) + np.float32(root)
        below = np.minimum(seen, 0) * np.float32(2 * k * root)
        levels: Array = shifted * shifted - np.float32(self.offset) + below + np.float32(self.photon / 4)
        return levels

    def back_deviation(self, values: Array, deviation: Array) -> Array:
        """Standard deviations of levels, to first order, from those of ``values``."""
        if math.isinf(self.offset):
            return deviation * np.float32(1 / self.scale)
        root, k = math.sqrt(self.offset), self._k
        slope = (np.maximum(values, 0) * np.float32(k / self.scale) + np.float32(root)) * np.float32(2 * k)
        levels: Array = deviation * slope * np.float32(1 / self.scale)
        return levels


def _into_range(sigma: float) -> float:
    return min(1.0, STRONGEST / sigma) if sigma > 0 else 1.0
