"""Single samples that lie: hot and dead pixels of the sensor, found in the capture itself.

A sample is taken for a defect if it lies above all eight nearest samples at its places of the pattern, or
below them, by more than the noise and the spread of these eight allow, while its four neighbours of other
colours show nothing: an optical image is never as sharp as one sample, so light of the scene reaches them
too. It is replaced by the median of the eight. Where more than one sample in two hundred looks like that it
is texture, and nothing is replaced. The whole capture is searched before its tiles are cut, so that no tile
sees another answer; what is kept is a list.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt

from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import FARTHEST, Capture
from nonet.services.raw_image.noise import NoiseModel
from nonet.services.raw_image.tiling import mirrored

_SIGMAS: Final = 8.0
_LEAST: Final = 0.01
"""Distance from the neighbours, as a share of black to white, below which nothing is replaced."""
_SPREADS: Final = 2.0
_SUPPORT: Final = 0.1
_MOST: Final = 1 / 200
_STRIP_ROWS: Final = 256
_REACH: Final = 4
_AROUND: Final = [(row, column) for row in (-2, 0, 2) for column in (-2, 0, 2) if row or column]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Defects:
    """Places [n] of samples in the mosaic, and what stands there instead, in the mosaic's own scale."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: Array

    def mended(self, samples: Array, rows: Array, columns: Array) -> Array:
        """``samples`` of these rows and columns of the mosaic, which may repeat, without the defects.

        A copy where there are any.
        """
        inside = (
            (self.rows >= rows.min())
            & (self.rows <= rows.max())
            & (self.columns >= columns.min())
            & (self.columns <= columns.max())
        )
        if not inside.any():
            return samples
        samples = samples.copy()
        for row, column, value in zip(
            self.rows[inside], self.columns[inside], self.values[inside], strict=True
        ):
            samples[np.ix_(rows == row, columns == column)] = value
        return samples


NO_DEFECTS: Final = Defects(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
"""For a capture whose samples are all to be kept."""


def find_defects(capture: Capture, noise: NoiseModel) -> Defects:
    """The defects of a capture; see the module's text."""
    rows, columns, values = [], [], []
    most = int(capture.pixels * _MOST)
    for top in range(0, capture.height, _STRIP_ROWS):
        found = _in_strip(capture, noise, top, min(top + _STRIP_ROWS, capture.height))
        rows.append(found.rows)
        columns.append(found.columns)
        values.append(found.values)
        if sum(map(len, rows)) > most:
            return NO_DEFECTS
    return Defects(np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def _in_strip(capture: Capture, noise: NoiseModel, top: int, bottom: int) -> Defects:
    black = np.array(capture.black, dtype=np.float32).reshape(2, 2)
    span = np.array(capture.white, dtype=np.float32).reshape(2, 2) - black
    rows = mirrored(np.arange(top - _REACH, bottom + _REACH), capture.height)
    columns = mirrored(np.arange(-_REACH, capture.width + _REACH), capture.width)
    strip = capture.mosaic[rows[:, None], columns].astype(np.float32)
    places = (rows[:, None] % 2, columns % 2)
    with np.errstate(over="ignore"):
        strip = np.clip((strip - black[places]) / span[places], -FARTHEST, FARTHEST)

    def moved(down: int, right: int) -> Array:
        part: Array = strip[_REACH + down : len(strip) - _REACH + down, :]
        return part[:, _REACH + right : part.shape[1] - _REACH + right]

    own, around = moved(0, 0), [moved(*step) for step in _AROUND]
    highest, lowest = np.maximum.reduce(around), np.minimum.reduce(around)
    beyond = np.maximum(own - highest, lowest - own)
    candidates = np.nonzero(beyond > np.maximum(_SPREADS * (highest - lowest), _LEAST))
    near = np.stack([each[candidates] for each in around])
    middle = np.median(near, axis=0)
    sigma = np.sqrt(np.maximum(noise.a * np.maximum(middle, 0) + noise.b, 0)) if noise.known else 0.0
    rise = own[candidates] - middle
    beside = sum(moved(*step)[candidates] for step in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    farther = sum(moved(*step)[candidates] for step in ((-3, 0), (3, 0), (0, -3), (0, 3)))
    alone = np.sign(rise) * (beside - farther) / 4 < _SUPPORT * np.abs(rise)
    kept = alone & (beyond[candidates] > _SIGMAS * sigma)
    row, column = candidates[0][kept] + top, candidates[1][kept]
    place = (row % 2, column % 2)
    return Defects(row, column, middle[kept] * span[place] + black[place])
