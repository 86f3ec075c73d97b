"""Inputs for a check set, made from nothing: pictures with the statistics of photographs.

Photographs have most of their energy in coarse structures, its amplitude falling as 1/frequency. White noise
has not, and would compare engines and precisions on activations that no photograph causes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from nonet.runtime.images import DecodedImage, Preprocessing, preprocess
from nonet.runtime.tensors import Array

_SIDE = 384
_MEAN = (0.48, 0.46, 0.41)
_DEVIATION = 0.25
_COLOUR_SHARE = 0.35


def check_images(count: int, preprocessing: Preprocessing) -> Array:
    """float32 [count, 3, crop, crop]: preprocessed pictures, the same ones on every call."""
    random = np.random.default_rng(20260)
    return np.stack([preprocess(_picture(random), preprocessing) for _ in range(count)])


def _picture(random: np.random.Generator) -> DecodedImage:
    light = _field(random)
    channels = [light + _COLOUR_SHARE * _field(random) for _ in range(3)]
    pixels = np.stack(
        [mean + _DEVIATION * plane for mean, plane in zip(_MEAN, channels, strict=True)], axis=2
    )
    image = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
    return DecodedImage(image, _SIDE, _SIDE, "PNG")


def _field(random: np.random.Generator) -> Array:
    """float64 [side, side], mean 0, deviation 1, amplitude 1/frequency."""
    rows, columns = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((_SIDE, _SIDE))) / frequency
    plane: Array = np.fft.irfft2(spectrum, s=(_SIDE, _SIDE))
    plane /= plane.std()
    return plane
