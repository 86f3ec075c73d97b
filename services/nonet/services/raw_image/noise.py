"""Signal-dependent noise of a capture, estimated from the capture alone.

Model: the variance of a sample rises linearly with its expectation, var = a * level + b: photon noise and
read noise (A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, "Practical Poissonian-Gaussian noise modeling
and fitting for single-image raw-data", IEEE TIP 17(10), 2008).

Algorithm: the green samples, which lie twice as dense as the others and therefore alias least, are cut into
blocks of 12 x 12 pixels. In each, the second difference along both diagonals (J. Immerkaer, "Fast noise
variance estimation", CVIU 64(2), 1996, on the lattice of green) removes what is constant or sloped; its mean
square over 36 gives the block's noise variance, plus whatever texture leaves. Blocks are sorted by mean level
into bins of equal count; of each bin those are looked at that are flattest at a scale four times as coarse,
where noise has nearly gone: texture shows at both scales, noise at the fine one alone, so the choice does not
favour blocks with little noise. A line is fitted through the bins' medians by reweighted least squares that
trusts low points more, with a, b >= 0.

Guarantees: clipped blocks take no part; at most about four million samples are looked at. Limits: the noise
of a sensor is that of its green samples; a picture that is fine texture all over is taken for noise, and
correlated noise is underestimated.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import FARTHEST, Capture

_BLOCK: Final = 12
_CELL: Final = 4
_REACH: Final = 2
"""How far the second difference sees."""
_GAIN: Final = 36.0  # sum of squares of the kernel [1 -2 1]' [1 -2 1]
_FLAT: Final = 0.04
_FEWEST_FLAT: Final = 16
# Median of the block estimate for white Gaussian noise of variance 1 (72 correlated values a block).
_WHITE_MEDIAN: Final = 0.953
_SAMPLES: Final = 1 << 22
_BINS: Final = 8
_FEWEST_BLOCKS: Final = 9
_WORTH: Final = 36
"""Independent values that a block's estimate is worth."""
_ROUNDS: Final = 8
_NEAR_WHITE: Final = 0.98


@dataclasses.dataclass(frozen=True, slots=True)
class NoiseModel:
    """var = a * level + b for levels from 0 (black) to 1 (white); a, b >= 0.

    ``level`` is the middle of the levels it was measured at; ``known`` is False if nothing could be measured.
    """

    a: float
    b: float
    level: float = 0.5
    known: bool = True

    def sigma(self, level: float) -> float:
        """Standard deviation at a level."""
        return math.sqrt(max(self.a * max(level, 0.0) + self.b, 0.0))


NOTHING: Final = NoiseModel(0.0, 0.0, known=False)
"""The answer for a capture in which nothing can be measured."""


def estimate_noise(capture: Capture) -> NoiseModel:
    """The noise of a capture, in units of black to white; see the module's text."""
    rows = (capture.height - 2 * _REACH) // _BLOCK
    columns = (capture.width - 2 * _REACH) // _BLOCK
    if rows * columns < _FEWEST_BLOCKS or min(rows, columns) < 1:
        return NOTHING
    step = max(1, round(rows * columns * _BLOCK**2 / _SAMPLES))
    green = np.array([[colour == "G" for colour in pair] for pair in (capture.cfa[:2], capture.cfa[2:])])
    found = [
        _blocks(_strip(capture, row * _BLOCK, columns), green, _floor(capture))
        for row in range(0, rows, step)
    ]
    level, variance, coarse = (np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True))
    if level.size < _FEWEST_BLOCKS:
        return NOTHING
    return _fit(level, variance, coarse)


def _strip(capture: Capture, top: int, columns: int) -> Array:
    """Levels of a row of blocks and of what their second differences see around them, float32."""
    width = columns * _BLOCK + 2 * _REACH
    strip = capture.mosaic[top : top + _BLOCK + 2 * _REACH, :width].astype(np.float32)
    black, white = (
        np.tile(np.array(levels, dtype=np.float32).reshape(2, 2), (strip.shape[0] // 2, -(-width // 2)))[
            :, :width
        ]
        for levels in (capture.black, capture.white)
    )
    with np.errstate(over="ignore"):
        scaled: Array = np.clip((strip - black) / (white - black), -FARTHEST, FARTHEST)
    return scaled


def _blocks(strip: Array, green: Array, floor: float) -> tuple[Array, Array, Array]:
    """Mean level, fine and coarse variance of green in the blocks of a strip that are not clipped."""
    inner = strip[2:-2, 2:-2]
    columns = inner.shape[1] // _BLOCK
    mask = np.tile(green, (_BLOCK // 2, columns * _BLOCK // 2))  # the margin is even: the phase stays
    diagonal = strip[1:-3, 1:-3] + strip[1:-3, 3:-1] + strip[3:-1, 1:-3] + strip[3:-1, 3:-1]
    straight = strip[:-4, 2:-2] + strip[4:, 2:-2] + strip[2:-2, :-4] + strip[2:-2, 4:]
    fine = np.where(mask, 4 * inner - 2 * diagonal + straight, 0) ** 2

    def by_block(values: Array) -> Array:
        return values.reshape(_BLOCK, columns, _BLOCK).swapaxes(0, 1)

    count = _BLOCK**2 / 2
    values = by_block(np.where(mask, inner, 0))
    inside = (by_block(np.where(mask, inner, -np.inf)).max(axis=(1, 2)) < _NEAR_WHITE) & (
        by_block(np.where(mask, inner, np.inf)).min(axis=(1, 2)) > floor
    )
    cells = values.reshape(columns, _BLOCK // _CELL, _CELL, _BLOCK // _CELL, _CELL).sum(axis=(2, 4))
    cells /= np.float32(_CELL**2 / 2)
    coarse = (np.diff(cells, axis=1) ** 2).mean(axis=(1, 2)) + (np.diff(cells, axis=2) ** 2).mean(axis=(1, 2))
    return (
        (values.sum(axis=(1, 2)) / count)[inside],
        (by_block(fine).sum(axis=(1, 2)) / (count * _GAIN))[inside],
        coarse[inside],
    )


def _floor(capture: Capture) -> float:
    """The level at which samples are cut off below: 0 DN, unless black lies there and nothing is cut."""
    if max(capture.black) <= 0:
        return -math.inf
    return max(-black / (white - black) for black, white in zip(capture.black, capture.white, strict=True))


def _fit(level: Array, variance: Array, coarse: Array) -> NoiseModel:
    order = np.argsort(level, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if part.size >= _FEWEST_FLAT] or [order]
    points = []
    for part in bins:
        flattest = part[np.argsort(coarse[part], kind="stable")]
        chosen = flattest[: max(_FEWEST_FLAT, round(_FLAT * part.size))]
        points.append(
            (np.median(level[chosen]), np.median(variance[chosen]), np.median(coarse[chosen]), chosen.size)
        )
    x, y, rest, count = np.array(points).T
    # White noise leaves half its variance at the coarse scale: a bin with more of it has texture everywhere.
    trust = np.minimum(1.0, 0.5 * y / np.maximum(rest, 1e-12)) ** 2
    y = y / _WHITE_MEDIAN
    middle = float(np.median(level))
    if not y.max() > 0:
        return NoiseModel(0.0, 0.0, middle)
    weight = trust / np.maximum(y, 1e-3 * y.max()) ** 2
    a, b = 0.0, float(np.median(y))
    for _ in range(_ROUNDS):
        a, b = _line(x, y, weight)
        expected = np.maximum(a * x + b, 1e-3 * y.max())
        # Texture only adds: what lies far above the line counts less.
        weight = trust / (expected * np.maximum(np.abs(y - expected), 0.05 * expected))
    share = _below(a * x + b, y * (1 + np.sqrt(2 / (_WORTH * count))))
    return NoiseModel(a * share, b * share, middle)


def _below(line: Array, bounds: Array) -> float:
    """What a line is multiplied by to lie under all bounds but the lowest, at most 1.

    A bin's variance is that of its noise and of its texture, so it bounds the noise; one bin may be wrong the
    other way, having been clipped or painted.
    """
    ratios = np.sort(bounds / np.maximum(line, 1e-30))
    return float(min(1.0, ratios[min(1, ratios.size - 1)]))


def _line(x: Array, y: Array, weight: Array) -> tuple[float, float]:
    """Weighted least squares for y = a x + b with a, b >= 0."""
    total = weight.sum()
    mean_x, mean_y = float((weight * x).sum() / total), float((weight * y).sum() / total)
    spread = float((weight * (x - mean_x) ** 2).sum())
    a = float((weight * (x - mean_x) * (y - mean_y)).sum()) / spread if spread > 1e-12 * total else 0.0
    b = mean_y - a * mean_x
    if a < 0:
        return 0.0, max(mean_y, 0.0)
    if b < 0:
        squares = float((weight * x * x).sum())
        return max(float((weight * x * y).sum()) / squares, 0.0) if squares > 0 else 0.0, 0.0
    return a, b
