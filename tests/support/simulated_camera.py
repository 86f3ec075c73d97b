"""A camera whose every property is known: photographs become captures, as DNG files and as what they show.

Light passes the camera's matrix and its unequal colour sensitivities, photons arrive at random, electronics
add read noise before and after the gain of the ISO setting, 14 bits are stored above a black level.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nonet.runtime.tensors import Array
from nonet.services.raw_image.colour_models import XYZ_OF_SRGB
from nonet.services.raw_image.noise import NoiseModel
from tests.support import handmade_captures

MATRIX = np.array([[0.9020, -0.2890, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]])
"""XYZ to camera RGB, as :func:`handmade_captures.dng` writes it."""
GAINS = (2.0, 1.0, 1.6)
BLACK, WHITE = 512, 16383
EXPOSURE = 0.9
"""What the brightest green of a scene fills of the range."""


@dataclasses.dataclass(frozen=True)
class SimulatedCamera:
    """``electrons`` fill a photosite at ISO 100; ``read`` of them and ``stored`` steps of 14 bits are the
    standard deviations of the noise before and after the gain."""

    iso: int
    electrons: float = 40_000.0
    read: float = 3.0
    stored: float = 1.5

    @property
    def noise(self) -> NoiseModel:
        """Of a sample, black to white being 1."""
        a = self.iso / 100 / self.electrons
        return NoiseModel(a, (self.read * a) ** 2 + (self.stored / (WHITE - BLACK)) ** 2)

    def scene(self, picture: Array) -> Array:
        """Balanced camera RGB [H, W, 3], linear in light, of a photograph in sRGB with values from 0 to 1."""
        linear = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
        camera = MATRIX @ XYZ_OF_SRGB
        seen: Array = np.clip(linear @ (camera / camera.sum(axis=1, keepdims=True)).T, 0, 1) * EXPOSURE
        return seen

    def mosaic(self, scene: Array, seed: int, cfa: str = "RGGB") -> Array:
        """The stored samples of a scene, uint16 [H, W]."""
        light = handmade_captures.mosaicked(scene / np.array(GAINS), cfa)
        random = np.random.default_rng(seed)
        a, b = self.noise.a, self.noise.b
        taken = random.poisson(light / a) * a + random.standard_normal(light.shape) * np.sqrt(b)
        stored = np.rint(np.minimum(taken, 1.0) * (WHITE - BLACK) + BLACK)
        return np.clip(stored, 0, WHITE).astype(np.uint16)

    def file(self, scene: Array, seed: int, cfa: str = "RGGB") -> bytes:
        """A DNG file of a scene."""
        return handmade_captures.dng(self.mosaic(scene, seed, cfa), cfa, white=WHITE, black=BLACK)
