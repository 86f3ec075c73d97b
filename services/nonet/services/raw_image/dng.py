"""The colours of a DNG, as its own tags give them (Adobe, Digital Negative Specification 1.7, chapter 6).

A DNG holds matrices from XYZ to camera RGB for one or two lights. For the light of the capture, which is the
one whose white has the camera's neutral values, the two are mixed in proportion to the reciprocal of the
colour temperature; since the matrix decides what white the neutral values are, both are found together by
iteration. Where the file has forward matrices they lead to XYZ of D50, otherwise the inverse does, followed
by Bradford's adaptation from the white of the capture.

The colour temperature of a chromaticity follows C. McCamy, Color Research and Application 17(2), 1992.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np

from nonet.runtime.images.limits import Refusal
from nonet.runtime.images.tags import read_first_directory
from nonet.services.raw_image.colour_models import XYZ_OF_SRGB, Matrix

_VERSION, _MATRICES, _CALIBRATIONS, _FORWARD = 50706, (50721, 50722), (50723, 50724), (50964, 50965)
_BALANCE, _NEUTRAL, _WHITE_XY, _LIGHTS = 50727, 50728, 50729, (50778, 50779)
_SIGNATURES: Final = (50931, 50932)
_LENGTHS: Final = {
    _VERSION: 4,
    **dict.fromkeys((*_MATRICES, *_CALIBRATIONS, *_FORWARD), 9),
    _BALANCE: 3,
    _NEUTRAL: 3,
    _WHITE_XY: 2,
    **dict.fromkeys(_LIGHTS, 1),
    **dict.fromkeys(_SIGNATURES, 256),
}
_TEMPERATURES: Final[Mapping[int, float]] = {
    **dict.fromkeys((3, 17), 2850.0),
    **dict.fromkeys((1, 4, 9, 18, 20), 5500.0),
    **dict.fromkeys((10, 19, 21), 6500.0),
    **dict.fromkeys((11, 22), 7500.0),
    **dict.fromkeys((2, 14), 4150.0),
    12: 6400.0,
    13: 5050.0,
    15: 3525.0,
    16: 2925.0,
    23: 5000.0,
    24: 3200.0,
}
"""Kelvin of the values of Exif's LightSource; of a range its middle."""
_D50: Final = (0.3457, 0.3585)
_D65: Final = (0.3127, 0.3290)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_ROUNDS: Final = 30
_SMALLEST: Final = 1e-6
_LARGEST: Final = 100.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DngColours:
    """A :class:`~.colour_models.ColourModel` of a DNG.

    Args:
        matrices: XYZ to camera RGB, one or two, calibration and analog balance excluded.
        balances: analog balance times camera calibration, for the same lights.
        forward: balanced camera RGB to XYZ (D50), for the same lights; empty if the file has none.
        temperatures: of the lights in kelvin; one, or two that differ.
    """

    matrices: tuple[Matrix, ...]
    balances: tuple[Matrix, ...]
    forward: tuple[Matrix, ...]
    temperatures: tuple[float, ...]

    def to_srgb(self, gains: tuple[float, float, float]) -> Matrix:
        """See :class:`~.colour_models.ColourModel`; the light is the one that ``gains`` make neutral."""
        neutral = 1 / np.array(gains, dtype=np.float64)
        share = self._share(self.white(neutral))
        balance = _mixed(self.balances, share)
        if self.forward:
            reference = np.linalg.solve(balance, neutral)
            to_d50 = _mixed(self.forward, share) @ np.diag(1 / reference) @ np.linalg.inv(balance)
        else:
            camera = balance @ _mixed(self.matrices, share)
            to_d50 = adaptation(self.white(neutral), _D50) @ np.linalg.inv(camera)
        found = np.linalg.inv(XYZ_OF_SRGB) @ adaptation(_D50, _D65) @ to_d50 @ np.diag(neutral)
        sums = found.sum(axis=1, keepdims=True)
        if not np.isfinite(found).all() or sums.min() < _SMALLEST:
            return np.eye(3)
        return np.asarray(found / sums)

    def white(self, neutral: Matrix) -> tuple[float, float]:
        """Chromaticity of the light under which a neutral surface has these camera values."""
        white = _D50
        for _ in range(_ROUNDS):
            found = np.linalg.solve(self._camera(white), neutral)
            total = float(found.sum())
            if not total > 0:
                return _D50
            after = (
                min(max(float(found[0]) / total, 0.05), 0.8),
                min(max(float(found[1]) / total, 0.05), 0.8),
            )
            if abs(after[0] - white[0]) + abs(after[1] - white[1]) < 1e-7:
                return after
            white = after
        return white

    def gains(self, white: tuple[float, float]) -> tuple[float, float, float]:
        """Gains that make the light of that chromaticity neutral, G being 1."""
        red, green, blue = self._camera(white) @ _xyz(white)
        return float(green / red), 1.0, float(green / blue)

    def _camera(self, white: tuple[float, float]) -> Matrix:
        share = self._share(white)
        return np.asarray(_mixed(self.balances, share) @ _mixed(self.matrices, share))

    def _share(self, white: tuple[float, float]) -> float:
        """How much of the first matrix the light takes."""
        if len(self.temperatures) == 1:
            return 1.0
        first, second = self.temperatures
        share = (1 / temperature_of(white) - 1 / second) / (1 / first - 1 / second)
        return min(max(share, 0.0), 1.0)


def read_dng(data: bytes) -> tuple[DngColours | None, tuple[float, float, float] | None]:
    """Colours and white balance (gains of R, G, B, G being 1) of a DNG; None each where it says none."""
    try:
        directory = read_first_directory(data, _LENGTHS)
    except Refusal:
        return None, None
    tags = directory[0] if directory else {}
    if _VERSION not in tags:
        return None, None
    colours = _colours(tags)
    neutral, white = tags.get(_NEUTRAL, ()), tags.get(_WHITE_XY, ())
    gains = None
    if len(neutral) == 3 and min(neutral) > 0:
        gains = (neutral[1] / neutral[0], 1.0, neutral[1] / neutral[2])
    elif len(white) == 2 and min(white) > 0 and colours is not None:
        gains = colours.gains((white[0], white[1]))
    return colours, gains


def _colours(tags: Mapping[int, tuple[float, ...]]) -> DngColours | None:
    balance = np.diag(tags[_BALANCE]) if _usable_balance(tags.get(_BALANCE, ())) else np.eye(3)
    said, profile = (bytes(map(int, tags.get(tag, ()))).rstrip(b"\0") for tag in _SIGNATURES)
    matrices, balances, forward, temperatures = [], [], [], []
    for matrix, calibration, onward, light in zip(_MATRICES, _CALIBRATIONS, _FORWARD, _LIGHTS, strict=True):
        found = _matrix(tags, matrix)
        if found is None:
            continue
        own = _matrix(tags, calibration) if said == profile else None
        matrices.append(found)
        balances.append(balance if own is None else balance @ own)
        ahead = _matrix(tags, onward)
        forward += [] if ahead is None else [ahead]
        temperatures.append(_TEMPERATURES.get(int(tags.get(light, (0,))[0]), 0.0))
    if not matrices:
        return None
    count = 2 if len(matrices) == 2 and min(temperatures) > 0 and temperatures[0] != temperatures[1] else 1
    ahead_all = tuple(forward[:count]) if len(forward) == len(matrices) else ()
    return DngColours(
        tuple(matrices[:count]), tuple(balances[:count]), ahead_all, tuple(temperatures[:count])
    )


def _usable_balance(values: tuple[float, ...]) -> bool:
    return len(values) == 3 and min(values) > _SMALLEST and max(values) < _LARGEST


def _matrix(tags: Mapping[int, tuple[float, ...]], tag: int) -> Matrix | None:
    """The matrix of a tag, None if it is not there or cannot be inverted."""
    values = np.array(tags.get(tag, ()), dtype=np.float64)
    if values.size != 9 or not np.abs(values).max() < _LARGEST:
        return None
    matrix = values.reshape(3, 3)
    return matrix if abs(np.linalg.det(matrix)) > _SMALLEST else None


def _mixed(matrices: tuple[Matrix, ...], share: float) -> Matrix:
    return matrices[0] if len(matrices) == 1 else share * matrices[0] + (1 - share) * matrices[1]


def _xyz(white: tuple[float, float]) -> Matrix:
    x, y = white
    return np.array([x / y, 1.0, (1 - x - y) / y])


def adaptation(source: tuple[float, float], target: tuple[float, float]) -> Matrix:
    """XYZ under one white to XYZ under another, given by chromaticities, after Bradford."""
    before, after = _BRADFORD @ _xyz(source), _BRADFORD @ _xyz(target)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(after / np.maximum(before, 1e-3)) @ _BRADFORD)


def temperature_of(white: tuple[float, float]) -> float:
    """Correlated colour temperature of a chromaticity in kelvin, 1000 to 40,000."""
    x, y = white
    slope = (x - 0.3320) / (0.1858 - y) if abs(0.1858 - y) > _SMALLEST else 0.0
    return float(min(max(449 * slope**3 + 3525 * slope**2 + 6823.3 * slope + 5520.33, 1000.0), 40_000.0))
