"""Recoloured drawings with captions that say so: the cheapest pictures of things that do not exist.

A drawing that one hue rules (on at least 40 % of what is opaque) gets another one there: saturation and shade
stay, so that shadows and lights do. Its caption then says the colour ("blue apple" of "red apple").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nonet.research.snapgen.drawing import Pixels

#: Hue in degrees, factor of saturation and least value of each colour that a drawing can be given.
TARGETS: dict[str, tuple[float, float, float]] = {
    "red": (2.0, 1.0, 0.0),
    "orange": (28.0, 1.0, 0.35),
    "yellow": (50.0, 1.0, 0.45),
    "green": (125.0, 0.9, 0.0),
    "blue": (216.0, 1.0, 0.0),
    "purple": (275.0, 0.9, 0.0),
    "pink": (332.0, 0.6, 0.5),
}
#: Middle hue of each named colour, for naming what is there.
_NAMED_HUES = {"red": 2, "orange": 28, "yellow": 50, "green": 120, "blue": 212, "purple": 275, "pink": 330}
COLOUR_WORDS = frozenset({*TARGETS, "brown", "black", "white", "grey", "gray", "golden"})
LEAST_SHARE = 0.4
#: Half the width in degrees of the range of hues that counts as one.
RANGE = 26.0


@dataclass(frozen=True)
class Ruling:
    """The hue that rules a drawing, in degrees; its share of the opaque area, its mean value (0 to 1)."""

    hue: float
    share: float
    value: float

    @property
    def name(self) -> str:
        """The named colour that is nearest; a dark orange is brown."""
        if 8 <= self.hue <= 45 and self.value < 0.68:
            return "brown"
        return min(_NAMED_HUES, key=lambda name: float(_distance(np.asarray(self.hue), _NAMED_HUES[name])))


def ruling_hue(drawing: Pixels) -> Ruling:
    """The hue that rules a drawing (side, side, 4); of share 0 if none does."""
    hue, saturation, value, opaque = _hsv(drawing)
    coloured = opaque & (saturation > 0.25) & (value > 0.2)
    total = int(opaque.sum())
    if not total or not coloured.any():
        return Ruling(0.0, 0.0, 0.0)
    counts, _ = np.histogram(hue[coloured], bins=72, range=(0.0, 360.0))
    width = int(RANGE // 5)
    # Weights fall off from the middle, so that one single hue has its peak at its own place.
    window = sum(np.roll(counts, at) * (width + 1 - abs(at)) for at in range(-width, width + 1))
    middle = float(np.argmax(window)) * 5 + 2.5
    near = coloured & (_distance(hue, middle) <= RANGE)
    if not near.any():
        return Ruling(0.0, 0.0, 0.0)
    turn = np.deg2rad(hue[near])
    mean = float(np.rad2deg(np.arctan2(np.sin(turn).mean(), np.cos(turn).mean())) % 360)
    return Ruling(mean, float(near.sum()) / total, float(value[near].mean()))


def recolour(drawing: Pixels, hue: float, target: str) -> Pixels:
    """A drawing whose pixels of a hue (degrees) have the hue of `target`, a key of TARGETS."""
    to_hue, factor, least = TARGETS[target]
    hues, saturation, value, opaque = _hsv(drawing)
    # Whole inside the range, fading out beyond it, so that no edge appears within a shade.
    weight = (
        np.clip((RANGE + 14 - _distance(hues, hue)) / 14, 0, 1) * np.clip(saturation / 0.15, 0, 1) * opaque
    )
    offset = (hues - hue + 180) % 360 - 180
    rgb = _rgb((to_hue + 0.5 * offset) % 360, saturation * factor, least + (1 - least) * value)
    mixed = drawing[..., :3] * (1 - weight[..., None]) + 255 * rgb * weight[..., None]
    return np.concatenate([np.rint(mixed).clip(0, 255).astype(np.uint8), drawing[..., 3:]], axis=-1)


def recoloured_name(name: str, target: str) -> str | None:
    """A name with the new colour: its colour word replaced, or the colour put before it.

    `None` where more than one colour word leaves open which is meant.
    """
    words = name.split()
    at = [index for index, word in enumerate(words) if word.lower() in COLOUR_WORDS]
    if len(at) > 1:
        return None
    if at:
        words[at[0]] = target
        return " ".join(words)
    return f"{target} {name}"


def _distance(hue: npt.NDArray[np.floating], other: float) -> npt.NDArray[np.floating]:
    return np.abs((hue - other + 180) % 360 - 180)


def _hsv(
    drawing: Pixels,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Hue in degrees, saturation, value (0 to 1), and where the drawing is opaque; each (side, side)."""
    rgb = drawing[..., :3].astype(np.float32) / 255
    most, least = rgb.max(-1), rgb.min(-1)
    spread = np.maximum(most - least, 1e-6)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    sector = np.where(
        most == red,
        (green - blue) / spread % 6,
        np.where(most == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    saturation = np.where(most > 0, (most - least) / np.maximum(most, 1e-6), 0)
    return (60 * sector).astype(np.float32), saturation.astype(np.float32), most, drawing[..., 3] > 127


def _rgb(
    hue: npt.NDArray[np.floating], saturation: npt.NDArray[np.floating], value: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """RGB in 0 to 1, (side, side, 3): f(n) = v - v s max(0, min(k, 4 - k, 1)), k = (n + h / 60) mod 6."""
    k = (np.asarray([5.0, 3.0, 1.0]) + hue[..., None] / 60) % 6
    return value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))
