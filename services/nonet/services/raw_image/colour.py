"""From camera RGB, linear in light, to sRGB: white balance, camera matrix, exposure, tone.

- White balance: the camera's gains, the caller's, or grey world (G. Buchsbaum, J. Franklin Inst. 310, 1980)
  over what is neither black nor clipped. The smallest gain is 1.
- Highlights: channels clip at their gains, the first of them at 1. A colour beyond that keeps its
  brightness, and the chroma that it has with all channels clipped alike: so it turns neutral without a step
  or a tint, and what the channels that are not clipped still show is there (as the blending of D. Coffin's
  dcraw, in a space of brightness and two opponents).
- Matrix: what the model of the camera's colours says (:mod:`.colour_models`).
- Exposure: the brightest half per cent goes just below white, by a gain from 1 to 8; or the caller's stops.
- Tone: the sRGB transfer curve (IEC 61966-2-1), then a gentle S for contrast.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import Capture
from nonet.services.raw_image.colour_models import ColourModel

_OPPONENTS: Final[npt.NDArray[np.float32]] = np.array(
    [[0.5**0.5, -(0.5**0.5), 0], [6**-0.5, 6**-0.5, -2 * 6**-0.5]], dtype=np.float32
)
"""Two directions at right angles to grey and to each other, of length 1."""
_BRIGHT_SHARE: Final = 99.5
_BRIGHT_LEVEL: Final = 0.92
_MOST_EXPOSURE: Final = 8.0
_CONTRAST: Final = 0.3
_STEPS: Final = 1 << 14
_SAMPLES: Final = 1 << 20
_GREY_RANGE: Final = (0.005, 0.9)
_MOST_GAIN: Final = 8.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """What turns balanced camera RGB into sRGB.

    Args:
        gains: factors of R, G, B, the smallest being 1; applied to the mosaic, before the network.
        matrix: balanced camera RGB to linear sRGB, rows summing to 1, float32 (3, 3).
        exposure: factor before the tone curve.
    """

    gains: tuple[float, float, float]
    matrix: npt.NDArray[np.float32]
    exposure: float

    @property
    def plane_gains(self) -> Array:
        """Factors of the planes R, G1, G2, B; float32 (4, 1, 1)."""
        red, green, blue = self.gains
        return np.array([red, green, green, blue], dtype=np.float32).reshape(4, 1, 1)

    def picture(self, levels: Array) -> Array:
        """sRGB in 0..1 [3, H, W] of balanced camera RGB."""
        return _looked_up(self._exposed(blended(levels)), _tone_curve())

    def deviation(self, levels: Array, deviation: Array) -> Array:
        """Standard deviation of :meth:`picture`, to first order, for independent channels."""
        squares = np.tensordot(self.matrix**2, deviation**2, axes=1)
        slope = _looked_up(self._exposed(levels), _tone_slope())
        return np.sqrt(squares) * np.float32(self.exposure) * slope

    def _exposed(self, levels: Array) -> Array:
        return np.tensordot(self.matrix, levels, axes=1) * np.float32(self.exposure)


def rendering_of(
    capture: Capture,
    white_balance: str | tuple[float, float, float],
    colours: ColourModel | None,
    stops: float | None = None,
) -> Rendering:
    """The rendering of a capture.

    Args:
        capture: for its statistics.
        white_balance: ``auto``, ``none``, or gains. ``camera`` is resolved by the caller.
        colours: None if unknown: camera RGB is then taken for linear sRGB.
        stops: exposure; None for what the capture's brightest parts ask for.
    """
    sample = _sampled(capture)
    if isinstance(white_balance, tuple):
        gains = white_balance
    elif white_balance == "auto":
        gains = _grey_world(sample)
    else:
        gains = (1.0, 1.0, 1.0)
    least = min(gains)
    red, green, blue = (gain / least for gain in gains)
    balanced = np.minimum(sample * np.array([red, green, blue]), 1.0)
    to_srgb = np.eye(3) if colours is None else colours.to_srgb((red, green, blue))
    if stops is not None:
        return Rendering((red, green, blue), to_srgb.astype(np.float32), 2.0**stops)
    bright = float(np.percentile((balanced @ to_srgb.T).max(axis=1), _BRIGHT_SHARE)) if len(sample) else 1.0
    exposure = min(max(_BRIGHT_LEVEL / max(bright, 1e-6), 1.0), _MOST_EXPOSURE)
    return Rendering((red, green, blue), to_srgb.astype(np.float32), exposure)


def blended(levels: Array) -> Array:
    """Balanced camera RGB [3, ...] with the chroma of what is beyond 1 replaced; the rest as it is."""
    beyond = levels.max(axis=0) > 1
    if not beyond.any():
        return levels
    colours = levels[:, beyond]
    opponents = _OPPONENTS @ colours
    chroma = np.hypot(*opponents)
    clipped = np.hypot(*(_OPPONENTS @ np.minimum(colours, 1)))
    scale = np.divide(clipped, chroma, out=np.ones_like(chroma), where=chroma > 0)
    out: Array = levels.copy()
    out[:, beyond] = colours.mean(axis=0) + _OPPONENTS.T @ (opponents * np.minimum(scale, 1))
    return out


def _sampled(capture: Capture) -> npt.NDArray[np.float64]:
    """Levels of R, G, B [n, 3] of a regular choice of quads, at most about a million."""
    down, right = capture.shift
    quads = capture.mosaic[down:, right:]
    height, width = quads.shape[0] // 2 * 2, quads.shape[1] // 2 * 2
    step = 2 * max(1, round((height * width / 4 / _SAMPLES) ** 0.5))
    black, white = capture.plane_black.astype(np.float64), capture.plane_white.astype(np.float64)
    planes = [
        (quads[row:height:step, column:width:step].astype(np.float64) - black[2 * row + column])
        / (white[2 * row + column] - black[2 * row + column])
        for row in (0, 1)
        for column in (0, 1)
    ]
    rows, columns = min(p.shape[0] for p in planes), min(p.shape[1] for p in planes)
    red, first, second, blue = (plane[:rows, :columns].reshape(-1) for plane in planes)
    return np.stack([red, (first + second) / 2, blue], axis=1)


def _grey_world(sample: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    low, high = _GREY_RANGE
    usable = sample[(sample.max(axis=1) < high) & (sample.mean(axis=1) > low)]
    if len(usable) < 16:
        return 1.0, 1.0, 1.0
    red, green, blue = (max(float(mean), 1e-6) for mean in usable.mean(axis=0))
    return (
        min(max(green / red, 1 / _MOST_GAIN), _MOST_GAIN),
        1.0,
        min(max(green / blue, 1 / _MOST_GAIN), _MOST_GAIN),
    )


@functools.cache
def _tone_curve() -> Array:
    """The tone curve at equal steps of the square root of linear light, float32."""
    light = np.linspace(0, 1, _STEPS) ** 2
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    bent = encoded + _CONTRAST * (encoded * encoded * (3 - 2 * encoded) - encoded)
    return np.asarray(bent, dtype=np.float32)


@functools.cache
def _tone_slope() -> Array:
    """Derivative of the tone curve by linear light, at the same steps."""
    light = np.linspace(0, 1, _STEPS) ** 2
    return np.asarray(np.gradient(_tone_curve().astype(np.float64), light), dtype=np.float32)


def _looked_up(light: Array, table: Array) -> Array:
    places = np.sqrt(np.clip(light, 0, 1)) * np.float32(_STEPS - 1) + np.float32(0.5)
    found: Array = table[places.astype(np.int32)]
    return found
