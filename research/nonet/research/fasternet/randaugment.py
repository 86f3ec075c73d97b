"""RandAugment (E. Cubuk et al., 2020): two random operations, each of a random strength."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float, float], Image.Image]
_GREY = (124, 116, 104)  # the ImageNet mean fills what a shift or turn uncovers


def _affine(picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=_GREY
    )


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, level, sign: kind(picture).enhance(max(0.1, 1 + 0.9 * sign * level))


#: operation(picture, strength 0..1, sign -1 or 1); the strengths at 1 are the usual largest ones.
OPERATIONS: tuple[Operation, ...] = (
    lambda picture, level, sign: ImageOps.autocontrast(picture),
    lambda picture, level, sign: ImageOps.equalize(picture),
    lambda picture, level, sign: ImageOps.invert(picture),
    lambda picture, level, sign: picture.rotate(30 * sign * level, Image.Resampling.BICUBIC, fillcolor=_GREY),
    lambda picture, level, sign: ImageOps.posterize(picture, max(1, 4 - int(4 * level))),
    lambda picture, level, sign: ImageOps.solarize(picture, 256 - int(256 * level)),
    lambda picture, level, sign: picture.point(
        [min(255, i + int(110 * level)) if i < 128 else i for i in range(256)] * 3
    ),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    lambda picture, level, sign: _affine(picture, (1, 0.3 * sign * level, 0, 0, 1, 0)),
    lambda picture, level, sign: _affine(picture, (1, 0, 0, 0.3 * sign * level, 1, 0)),
    lambda picture, level, sign: _affine(picture, (1, 0, 0.45 * sign * level * picture.width, 0, 1, 0)),
    lambda picture, level, sign: _affine(picture, (1, 0, 0, 0, 1, 0.45 * sign * level * picture.height)),
)


def randaugment(
    picture: Image.Image, magnitude: float, deviation: float, random: np.random.Generator
) -> Image.Image:
    """Apply two operations, each with probability 1/2, at a strength drawn around `magnitude` of 10."""
    for index in random.integers(len(OPERATIONS), size=2):
        if random.random() < 0.5:
            level = float(np.clip(random.normal(magnitude, deviation), 0, 10)) / 10
            sign = 1.0 if random.random() < 0.5 else -1.0
            picture = OPERATIONS[index](picture, level, sign)
    return picture
