"""The scale in which the network sees a capture.

The network has learnt from photographs in sRGB with noise of one strength. A capture that is linear in light
has neither that distribution nor that noise, so each colour is bent by

    f(z) = (sqrt(z + g c) - sqrt(g c)) / k,   k = sqrt(1 + c) - sqrt(c)   (f goes on straight below z = 0)

where g is the gain that white balance gave the colour. With c = b / a this is the variance stabiliser of a
sample with var = a z + b times that gain (F. J. Anscombe, Biometrika 35, 1948, in the generalised form of Foi
et al. 2008), and much like the transfer curve of sRGB. The mean of f(x) lies below f(z) by
a g / (8 k sqrt(z + g c)) to first order, so the exact inverse is followed by adding a g / 4.

b is what is hardest to measure, since it shows in the darkest places alone. It is read noise, of which a
sensor has a few electrons, and an electron is a of the range; so b is at least (2 a)^2, however little was
found.

For large c, f is the identity. That is what a capture gets whose own values are wanted: nothing says that
they are linear in light, and on values that are not, bending lost 0.7 dB where it was wrong and won nothing
where it was right. Noise stronger than the network has seen is brought into its range by scaling the capture
down.
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
_PICTURE_OFFSETS: Final = (0.002, 0.1)
_READ_ELECTRONS: Final = 2.0
"""Least read noise of a sensor."""
_DEFAULT_OFFSET: Final = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Domain:
    """Forth and back between levels (0 black, 1 white) and what the network sees.

    Args:
        offset: c of the module's text; ``math.inf`` for the identity.
        photon: a of the noise, for the bias of the inverse.
        gains: g of R, G, B; with other than ones, captures are planes R, G1, G2, B and answers R, G, B.
        scale: what f is multiplied by, at most 1.
    """

    offset: float = math.inf
    photon: float = 0.0
    scale: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def of_data(cls, noise: NoiseModel, told: float | None) -> Domain:
        """For values that are wanted in their own scale, whatever that is: never bent."""
        return cls(scale=_into_range(noise.sigma(noise.level) if told is None else told))

    @classmethod
    def of_light(
        cls, noise: NoiseModel, told: float | None, gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> Domain:
        """For a capture that is linear in light and becomes a picture: always bent.

        Args:
            noise: of the samples before white balance.
            told: their standard deviation at the level of ``noise``, if the caller knows it.
            gains: what white balance multiplies R, G, B by before this.
        """
        low, high = _PICTURE_OFFSETS
        offset = _DEFAULT_OFFSET
        if told is None and noise.known and noise.a > 0:
            offset = max(noise.b / noise.a, _READ_ELECTRONS**2 * noise.a)
        model = noise if told is None else NoiseModel(0.0, told**2, noise.level)
        return cls._bent(min(max(offset, low), high), model, gains)

    @classmethod
    def _bent(cls, offset: float, noise: NoiseModel, gains: tuple[float, float, float]) -> Domain:
        plain = cls(offset=offset, photon=noise.a, gains=gains)
        level = max(noise.level, 0.0)
        # The bend leaves a colour's noise larger by the root of its gain.
        largest = math.sqrt(max(gains)) * noise.sigma(level) / (2 * plain._k * math.sqrt(level + offset))
        return dataclasses.replace(plain, scale=_into_range(largest))

    @property
    def _k(self) -> float:
        return math.sqrt(1 + self.offset) - math.sqrt(self.offset)

    def _by_gain(self, value: float, *, planes: bool) -> Array:
        """A value times the gains: one number where all are 1, else of the planes or the colours."""
        red, green, blue = self.gains
        if red == green == blue == 1:
            return np.array(value, dtype=np.float32)
        gains = (red, green, green, blue) if planes else self.gains
        return np.array(gains, dtype=np.float32).reshape(-1, 1, 1) * np.float32(value)

    def forth(self, levels: Array) -> Array:
        """What the network sees of levels; float32 of the same shape."""
        if math.isinf(self.offset):
            return levels * np.float32(self.scale)
        offset, k = self._by_gain(self.offset, planes=True), np.float32(self._k)
        root = np.sqrt(offset)
        bent = (np.sqrt(np.maximum(levels, 0) + offset) - root) / k
        below = np.minimum(levels, 0) / (2 * k * root)
        seen: Array = (bent + below) * np.float32(self.scale)
        return seen

    def back(self, values: Array) -> Array:
        """Levels of what the network answered."""
        seen = values * np.float32(1 / self.scale)
        if math.isinf(self.offset):
            return seen
        offset, k = self._by_gain(self.offset, planes=False), np.float32(self._k)
        root = np.sqrt(offset)
        shifted = np.maximum(seen, 0) * k + root
        below = np.minimum(seen, 0) * (2 * k * root)
        levels: Array = shifted * shifted - offset + below + self._by_gain(self.photon / 4, planes=False)
        return levels

    def back_deviation(self, values: Array, deviation: Array) -> Array:
        """Standard deviations of levels, to first order, from those of ``values``."""
        if math.isinf(self.offset):
            return deviation * np.float32(1 / self.scale)
        root, k = np.sqrt(self._by_gain(self.offset, planes=False)), self._k
        slope = (np.maximum(values, 0) * np.float32(k / self.scale) + root) * np.float32(2 * k)
        levels: Array = deviation * slope * np.float32(1 / self.scale)
        return levels


def _into_range(sigma: float) -> float:
    return min(1.0, STRONGEST / sigma) if sigma > 0 else 1.0
