"""What regions of a picture look like, as a few numbers each: named colours, brightness, texture.

A region is sampled on a grid of points, so that the cost depends on the number of regions alone, and a region
looks the same whichever others are asked for. Shares of named colours are those of the eleven basic terms of
English (B. Berlin and P. Kay, "Basic Color Terms", 1969) and tan, in the region and in parts of it.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["COLOURS", "LOOKS", "LOOKS_VERSION", "PARTS", "looks_of"]

COLOURS: Final = (
    "black",
    "white",
    "grey",
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "tan",
)
PARTS: Final = ("whole", "middle", "top", "bottom")
"""The parts whose colours are told: all of it, the middle half of each side, the upper and the lower half."""

LOOKS: Final = len(COLOURS) * len(PARTS) + 4
"""Numbers for a region: the shares of the colours, part after part, then brightness, contrast, saturation
and texture, all 0..1."""

LOOKS_VERSION: Final = 1
"""Goes up whenever a picture would get other numbers: a network reads only those it was trained with."""

_GRID: Final = 16  # points on a side
_STEPS: Final = 32  # levels of a channel that colours are told apart by

Floats = npt.NDArray[np.float32]


def looks_of(pixels: npt.NDArray[np.uint8], boxes: npt.ArrayLike) -> Floats:
    """Looks [R, LOOKS] of the regions, 0..1.

    Args:
        pixels: [H, W, 3], sRGB, upright, at least one pixel.
        boxes: [R, 4], x1 y1 x2 y2 as fractions of the picture. What lies outside is moved to the edge; a box
            without area is the pixel where it stands.
    """
    height, width = pixels.shape[:2]
    corners = np.clip(np.nan_to_num(np.asarray(boxes, np.float64).reshape(-1, 4)), 0.0, 1.0)
    if not len(corners):
        return np.zeros((0, LOOKS), np.float32)
    steps = (np.arange(_GRID) + 0.5) / _GRID
    x = corners[:, :1] + (corners[:, 2:3] - corners[:, :1]) * steps  # (R, G)
    y = corners[:, 1:2] + (corners[:, 3:4] - corners[:, 1:2]) * steps
    columns = np.minimum((x * width).astype(np.intp), width - 1)
    rows = np.minimum((y * height).astype(np.intp), height - 1)
    points = pixels[rows[:, :, None], columns[:, None, :]]  # (R, G, G, 3)
    return np.concatenate([_colour_shares(points), _tones(points)], axis=1)


def _colour_shares(points: npt.NDArray[np.uint8]) -> Floats:
    """(R, parts x colours) of points (R, G, G, 3)."""
    shift = 8 - _STEPS.bit_length() + 1
    levels = (points >> shift).astype(np.int32)
    named = _names()[(levels[..., 0] * _STEPS + levels[..., 1]) * _STEPS + levels[..., 2]]  # (R, G, G)
    quarter, half = _GRID // 4, _GRID // 2
    parts = (
        named,
        named[:, quarter : _GRID - quarter, quarter : _GRID - quarter],
        named[:, :half],
        named[:, half:],
    )
    return np.concatenate([_shares(part.reshape(len(named), -1)) for part in parts], axis=1)


def _shares(named: npt.NDArray[np.uint8]) -> Floats:
    """(R, colours) of the indices (R, points)."""
    offsets = np.arange(len(named))[:, None] * len(COLOURS)
    counts = np.bincount((named + offsets).reshape(-1), minlength=len(named) * len(COLOURS))
    shares: Floats = (counts.reshape(len(named), -1) / named.shape[1]).astype(np.float32)
    return shares


def _tones(points: npt.NDArray[np.uint8]) -> Floats:
    """(R, 4): brightness, contrast, saturation and texture of points (R, G, G, 3)."""
    values = points.astype(np.float32) / 255
    high, low = values.max(3), values.min(3)
    grey = values.mean(3)
    saturation = (high - low) / np.maximum(high, 1e-3)
    across = np.abs(np.diff(grey, axis=2)).mean((1, 2)) + np.abs(np.diff(grey, axis=1)).mean((1, 2))
    columns = (grey.mean((1, 2)), 2 * grey.std((1, 2)), saturation.mean((1, 2)), across)
    tones: Floats = np.clip(np.stack(columns, axis=1), 0.0, 1.0).astype(np.float32)
    return tones


@functools.cache
def _names() -> npt.NDArray[np.uint8]:
    """The index of the colour of every cell of the RGB cube, (levels ** 3,), red slowest."""
    level = (np.arange(_STEPS) + 0.5) / _STEPS
    red, green, blue = (each.reshape(-1) for each in np.meshgrid(level, level, level, indexing="ij"))
    high = np.maximum(np.maximum(red, green), blue)
    span = high - np.minimum(np.minimum(red, green), blue)
    saturation = span / high
    hue = _hue(red, green, blue, high, np.maximum(span, 1e-9))
    named: npt.NDArray[Any] = np.select(
        [
            high < 0.2,
            (saturation < 0.16) & (high > 0.78),
            (saturation < 0.16) | (high < 0.28) & (saturation < 0.4),
            ((hue < 12) | (hue >= 345)) & (saturation < 0.5) & (high > 0.6),
            ((hue < 12) | (hue >= 345)) & (high < 0.4) & (saturation < 0.6),
            (hue < 12) | (hue >= 345),
            (hue < 50) & (saturation < 0.55) & (high > 0.6),
            (hue < 45) & (high < 0.72),
            hue < 42,
            (hue < 68) & (high > 0.5),
            hue < 165,
            hue < 255,
            (hue < 300) | (high < 0.5),
            hue < 345,
        ],
        [COLOURS.index(name) for name in _RULED],
    )
    return named.astype(np.uint8)


_RULED: Final = (
    *("black", "white", "grey", "pink", "brown", "red", "tan", "brown", "orange", "yellow", "green", "blue"),
    *("purple", "pink"),
)


def _hue(red: Any, green: Any, blue: Any, high: Any, span: Any) -> npt.NDArray[np.float64]:
    """Degrees, 0 red, 120 green, 240 blue."""
    sextant = np.where(
        high == red,
        (green - blue) / span % 6,
        np.where(high == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    degrees: npt.NDArray[np.float64] = 60 * sextant
    return degrees
