"""Signal-dependent noise of a capture, estimated from the capture alone.

Model: the variance of a sample rises linearly with its expectation, var = a * level + b: photon noise and
read noise (A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, "Practical Poissonian-Gaussian noise modeling
and fitting for single-image raw-data", IEEE TIP 17(10), 2008).

Algorithm: each of the four colour planes is cut into blocks of 10 x 10. In each, the second difference in
both directions (J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996) removes what is constant or
sloped; its mean square over 36 gives the block's noise variance, plus whatever texture leaves. Blocks are
sorted by mean level into bins of equal count; of each bin the lowest twentieth of the variances is looked at,
since blocks without texture lie low: its upper end, divided by what that is for pure white noise. A line is
fitted through the bins by reweighted least squares that trusts low points more, with a, b >= 0.

Guarantees: clipped blocks take no part; at most about two million samples are looked at. Limits: a picture
that is fine texture all over is taken for noise, and correlated noise is underestimated.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import FARTHEST, Capture

_BLOCK: Final = 10
_GAIN: Final = 36.0  # sum of squares of the kernel [1 -2 1]' [1 -2 1]
_LOW: Final = 0.05
# That quantile of the block estimate for white Gaussian noise of variance 1 (64 correlated values a block).
_WHITE_LOW: Final = 0.551
_SAMPLES: Final = 1 << 21
_BINS: Final = 12
_FEWEST_BLOCKS: Final = 16
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
    levels, variances = [], []
    for index in range(4):
        row, column = divmod(index, 2)
        plane = capture.mosaic[row::2, column::2]
        black = capture.black[index]
        found = _blocks(plane, black, capture.white[index] - black)
        levels.append(found[0])
        variances.append(found[1])
    level, variance = np.concatenate(levels), np.concatenate(variances)
    if level.size < _FEWEST_BLOCKS:
        return NOTHING
    return _fit(level, variance)


def _blocks(plane: Array, black: float, span: float) -> tuple[Array, Array]:
    """Mean level and noise variance of the blocks of a plane that are not clipped."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    if rows == 0 or columns == 0:
        return np.empty(0), np.empty(0)
    step = max(1, round(rows * columns * _BLOCK**2 / (_SAMPLES / 4)))
    levels, variances = [], []
    for row in range(0, rows, step):
        strip = plane[row * _BLOCK : (row + 1) * _BLOCK, : columns * _BLOCK].astype(np.float32)
        with np.errstate(over="ignore"):
            scaled = np.clip((strip - black) / span, -FARTHEST, FARTHEST)
        blocks = scaled.reshape(_BLOCK, columns, _BLOCK).swapaxes(0, 1)
        across = blocks[:, :, :-2] - 2 * blocks[:, :, 1:-1] + blocks[:, :, 2:]
        both = across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:]
        inside = (blocks.max(axis=(1, 2)) < _NEAR_WHITE) & (
            blocks.min(axis=(1, 2)) > _floor(strip, black, span)
        )
        levels.append(blocks.mean(axis=(1, 2))[inside])
        variances.append((both**2).mean(axis=(1, 2))[inside] / _GAIN)
    return np.concatenate(levels).astype(np.float64), np.concatenate(variances).astype(np.float64)


def _floor(strip: Array, black: float, span: float) -> float:
    """The level at which samples are cut off below: 0 DN, unless black lies there and nothing is cut."""
    return -black / span if black > 0 else -math.inf


def _fit(level: Array, variance: Array) -> NoiseModel:
    order = np.argsort(level, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if part.size >= _FEWEST_BLOCKS // 2] or [order]
    x = np.array([np.median(level[part]) for part in bins])
    y = np.array([np.quantile(variance[part], _LOW) for part in bins]) / _WHITE_LOW
    middle = float(np.median(level))
    if not y.max() > 0:
        return NoiseModel(0.0, 0.0, middle)
    weight = 1 / np.maximum(y, 1e-3 * y.max()) ** 2
    a, b = 0.0, float(np.median(y))
    for _ in range(_ROUNDS):
        a, b = _line(x, y, weight)
        expected = np.maximum(a * x + b, 1e-3 * y.max())
        # Texture only adds: what lies far above the line counts less.
        weight = 1 / (expected * np.maximum(np.abs(y - expected), 0.05 * expected))
    return NoiseModel(a, b, middle)


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
