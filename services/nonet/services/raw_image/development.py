"""One capture on its way: what goes into the network for each tile, and what becomes of the answer.

Nothing of the size of the picture is held but the mosaic and the finished pixels: tiles are cut when they are
needed and rendered into the picture at once. The pixels may lie in a file instead of memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import FARTHEST, Capture
from nonet.services.raw_image.colour import Rendering, rendering_of
from nonet.services.raw_image.colour_models import ColourModel, OneMatrix
from nonet.services.raw_image.defects import NO_DEFECTS, find_defects
from nonet.services.raw_image.domain import Domain
from nonet.services.raw_image.encoding import CONTENT_TYPES, DEPTHS, Sink, write_picture
from nonet.services.raw_image.noise import estimate_noise
from nonet.services.raw_image.options import DevelopOptions
from nonet.services.raw_image.tiling import Tile, TileForm, Tiling, packed, spread

RULES: Final = 3
"""To be raised when a capture turns into other pixels than before."""

DEVIATION_RANGE: Final = 0.125
"""Standard deviation, as a share of black to white, that the largest stored value of the map stands for."""
_CAMERA_FILE: Final = "camera file"
_TRUSTED: Final = 1.5


Canvas = Callable[[tuple[int, ...], type[np.generic]], Array]
"""Given shape and type, the array that finished pixels are put into; what it holds before does not matter."""


class Development:
    """The development of one capture. Different tiles may be worked on in different threads.

    Args:
        capture: what is developed.
        options: how.
        form: tiles as the network takes them.
        canvas: makes the picture; by default in memory.

    Raises InvalidArgument for options that do not go with this kind of file.
    """

    def __init__(
        self, capture: Capture, options: DevelopOptions, form: TileForm, *, canvas: Canvas = np.empty
    ) -> None:
        self.capture = capture
        self.options = options
        self.render = render_of(capture, options)
        self._balance = white_balance_of(capture, options)
        self.noise = estimate_noise(capture)
        gives_all_back = options.noise == 0 or options.strength == 0
        self._defects = NO_DEFECTS if gives_all_back else find_defects(capture, self.noise)
        self.tiling = Tiling(form, capture.height, capture.width, capture.shift)
        self._told = None if options.noise is None else options.noise / 255
        self._rendering: Rendering | None = None
        if self.render == "srgb":
            self._rendering = rendering_of(capture, self._balance, self._colours(), options.exposure)
            self._domain = Domain.of_light(self.noise, self._told, self._rendering.gains)
        else:
            self._domain = Domain.of_data(self.noise, self._told)
        self._kept = 1 - options.strength * (1 - self._residual_kept())
        self._black, self._white = (
            self._by_place(each) for each in (capture.plane_black, capture.plane_white)
        )
        depth = np.uint8 if DEPTHS[options.output] == 8 else np.uint16
        self._picture = canvas((capture.height, capture.width, 3), depth)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.tiling.count

    def planes(self, index: int) -> Array:
        """What the network takes for a tile: float32 [4, size / 2, size / 2]."""
        capture = self.capture
        tile = self.tiling.cut(capture.mosaic, index)
        if len(self._defects.rows):
            tile = self._defects.mended(tile, *self.tiling.sources(index))
        samples = packed(tile).astype(np.float32)
        black, white = (each.reshape(4, 1, 1) for each in (capture.plane_black, capture.plane_white))
        samples -= black
        with np.errstate(over="ignore"):
            samples /= white - black
        np.clip(samples, -FARTHEST, FARTHEST, out=samples)
        if self._rendering is not None:
            np.minimum(samples, np.float32(1), out=samples)
            samples *= self._rendering.plane_gains
        return self._domain.forth(samples)

    def place(self, index: int, seen: Array, image: Array, deviation: Array | None) -> None:
        """Render the network's answer for a tile into the picture.

        Args:
            index: number of the tile.
            seen: what the network was given, [4, size / 2, size / 2].
            image: its image [3, size, size].
            deviation: its standard deviations, if the map is wanted.
        """
        tile = self.tiling.tile(index)
        if self._kept > 0:
            image = image + np.float32(self._kept) * spread((seen - _sampled(image))[None])[0]
        inner = (slice(None), tile.inner_rows, tile.inner_columns)
        image = image[inner]
        levels = self._domain.back(image)
        if deviation is not None:
            values = self._deviation(levels, self._domain.back_deviation(image, deviation[inner]))
        else:
            values = self._values(levels, tile)
        top = np.float32(np.iinfo(self._picture.dtype).max)
        stored = np.rint(np.clip(values, 0, top)).astype(self._picture.dtype)
        self._picture[tile.rows, tile.columns] = stored.transpose(1, 2, 0)

    def encoded(self) -> bytes:
        """The finished picture, upright, as a file."""
        buffer = io.BytesIO()
        self.write(buffer)
        return buffer.getvalue()

    def write(self, sink: Sink) -> None:
        """Write the finished picture, upright, as a file."""
        srgb = self.render == "srgb" and not self.options.uncertainty
        turned = upright(self._picture, self.capture.orientation)
        write_picture(sink, turned, self.options.output, srgb=srgb, shot=self.capture.shot)

    def details(self) -> dict[str, Any]:
        """What was done, JSON-able."""
        capture = self.capture
        height, width = capture.height, capture.width
        if capture.orientation >= 5:
            height, width = width, height
        facts: dict[str, Any] = {
            "width": width,
            "height": height,
            "content_type": CONTENT_TYPES[self.options.output],
            "source": capture.source,
            "cfa": capture.cfa,
            "black_level": list(capture.black),
            "white_level": capture.white[0] if len(set(capture.white)) == 1 else list(capture.white),
            "render": self.render,
            "tiles": self.tiles,
            "defects": len(self._defects.rows),
            "noise": {
                "sigma": round(255 * self.noise.sigma(self.noise.level), 4),
                "a": float(f"{self.noise.a:.4g}"),
                "b": float(f"{self.noise.b:.4g}"),
                "known": self.noise.known,
            },
        }
        if self._rendering is not None:
            facts["white_balance"] = [round(gain, 5) for gain in self._rendering.gains]
            facts["exposure"] = round(self._rendering.exposure, 5)
        if self.options.uncertainty:
            facts["std_scale"] = self._deviation_scale()
        return facts

    def _values(self, levels: Array, tile: Tile) -> Array:
        """Stored values of levels [3, h, w] of the inner part of a tile."""
        top = np.iinfo(self._picture.dtype).max
        if self._rendering is not None:
            return self._rendering.picture(levels) * np.float32(top)
        inner = (slice(None), tile.inner_rows, tile.inner_columns)
        black, white = self._black[inner], self._white[inner]
        own = levels * (white - black) + black
        stored: Array = own if top > 255 else own * np.float32(255 / max(self.capture.white))
        return stored

    def _deviation(self, levels: Array, deviation: Array) -> Array:
        top = np.iinfo(self._picture.dtype).max
        if self._rendering is not None:
            deviation = self._rendering.deviation(levels, deviation)
        return deviation * np.float32(top / DEVIATION_RANGE)

    def _deviation_scale(self) -> float:
        """What a stored value of the map is multiplied by to be in units of the picture's own values."""
        top = int(np.iinfo(self._picture.dtype).max)
        if self._rendering is not None:
            return DEVIATION_RANGE  # both are stored on the same range
        span = float(np.mean(self.capture.white)) - float(np.mean(self.capture.black))
        return DEVIATION_RANGE * (span if top > 255 else 255 * span / max(self.capture.white)) / top

    def _by_place(self, planes: Array) -> Array:
        """Levels [3, size, size] of the colours of a tile, of those of its planes R, G1, G2, B.

        Green has the mean of its two; where a sample stands, as far towards the sample's own as the sample is
        given back, so that it comes back as it was.
        """
        red, first, second, blue = (float(level) for level in planes)
        size = self.tiling.form.size
        levels = np.empty((3, size, size), dtype=np.float32)
        levels[0], levels[2] = red, blue
        levels[1] = mean = (first + second) / 2
        levels[1, 0::2, 1::2] = mean + self._kept * (first - mean)
        levels[1, 1::2, 0::2] = mean + self._kept * (second - mean)
        return levels

    def _colours(self) -> ColourModel | None:
        if self.options.matrix is not None:
            return OneMatrix(np.array(self.options.matrix, dtype=np.float64).reshape(3, 3))
        return self.capture.colours

    def _residual_kept(self) -> float:
        """Which share of what the network took for noise is given back.

        None, unless the caller says that there is less noise than the capture shows: then the share of its
        variance that the told level cannot explain. The estimate is trusted up to a factor only, so a true
        level costs nothing.
        """
        if self._told is None:
            return 0.0
        found = self.noise.sigma(self.noise.level)
        if self._told == 0 or found == 0:
            return 1.0 if self._told == 0 else 0.0
        return max(0.0, 1.0 - (_TRUSTED * self._told / found) ** 2)


def render_of(capture: Capture, options: DevelopOptions) -> str:
    """``none`` or ``srgb``: what was asked for, else what goes with the kind of file."""
    return options.render or ("srgb" if capture.source == _CAMERA_FILE else "none")


def white_balance_of(capture: Capture, options: DevelopOptions) -> str | tuple[float, float, float]:
    """``auto``, ``none`` or gains. Raises InvalidArgument for a white balance that does not go with this kind
    of file and rendering."""
    wanted, gains = options.white_balance, capture.gains
    if render_of(capture, options) == "none":
        if options.exposure is not None:
            raise InvalidArgument(
                "exposure goes with render=srgb; render=none keeps the mosaic's own values", param="exposure"
            )
        if wanted not in (None, "none"):
            raise InvalidArgument(
                "white_balance goes with render=srgb; render=none keeps the mosaic's own values",
                param="white_balance",
            )
        return "none"
    if wanted == "camera" and gains is None:
        raise InvalidArgument(
            "white_balance=camera, but the file has no white balance; send auto, none or three gains",
            param="white_balance",
        )
    if wanted in (None, "camera"):
        return gains or "auto"
    assert wanted is not None
    return wanted


def upright(picture: Array, orientation: int) -> Array:
    """A picture [height, width, 3] as it is meant to be seen, by its EXIF orientation 1 to 8: a view."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture


def _sampled(image: Array) -> Array:
    """The values of an image [3, T, T] where a mosaic that starts on R samples them: [4, T / 2, T / 2]."""
    return np.stack([image[0, 0::2, 0::2], image[1, 0::2, 1::2], image[1, 1::2, 0::2], image[2, 1::2, 1::2]])
