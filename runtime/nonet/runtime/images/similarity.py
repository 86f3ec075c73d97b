"""Similarity transforms of the plane (turn, scale, shift) between sets of points, and pictures under them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Similarity", "fit_similarity", "warp"]

Similarity = npt.NDArray[np.float64]
"""[2, 3]: (x, y) becomes (a x - b y + c, b x + a y + d), from the rows (a, -b, c) and (b, a, d)."""

_SAFE_SHRINK = 2


def fit_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> Similarity:
    """The transform that brings ``source`` [n, 2] nearest to ``target`` [n, 2] in the sum of squared
    distances; without mirroring.

    With points as complex numbers it is z -> p z + q, and p and q solve a linear least-squares problem.
    Raises ValueError if all points of the source are one.
    """
    here, there = _complex(source), _complex(target)
    centred = here - here.mean()
    spread = float((centred.conj() * centred).real.sum())
    if not spread > 0:
        raise ValueError("points that are all the same fix no scale")
    factor = complex((centred.conj() * (there - there.mean())).sum() / spread)
    shift = complex(there.mean() - factor * here.mean())
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def warp(image: Image.Image, transform: Similarity, size: tuple[int, int]) -> Image.Image:
    """``size`` (width, height) pixels of the picture after ``transform``; outside of it is black.

    Points are at the coordinates of pixels' corners: the middle of the first pixel is (0.5, 0.5). Where the
    transform shrinks by 2 or more the picture is averaged down first, so that fine detail does not alias.
    """
    scale = math.hypot(transform[0, 0], transform[1, 0])
    inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))[:2]
    shrink = int(1 / scale) if scale > 0 else 1
    if shrink >= _SAFE_SHRINK:
        shrink = min(shrink, *image.size)
        image = image.reduce(shrink)
        inverse = inverse / shrink
    return image.transform(
        size, Image.Transform.AFFINE, tuple(inverse.reshape(-1).tolist()), Image.Resampling.BICUBIC
    )


def _complex(points: npt.ArrayLike) -> npt.NDArray[np.complex128]:
    values = np.asarray(points, dtype=np.float64)
    return values[:, 0] + 1j * values[:, 1]
