"""From an image to a network's input, exactly as the version's manifest says."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from nonet.runtime.images.decode import DecodedImage

_FILTERS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_WHOLE: Final = ("fit_to_window", "fit_to_window_letterbox")  # keep the aspect ratio and cut nothing
_RESIZE_TYPES: Final = ("crop", "standard", *_WHOLE)
_LONGEST_ASPECT: Final = 4
_LARGEST_SIDE: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Where a whole picture lies in a network's input, in pixels of the input.

    A point of the picture times ``width / picture width`` (``height`` likewise), plus ``left`` (``top``), is
    the same point in the input.
    """

    left: int
    top: int
    width: int
    height: int


@dataclasses.dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize, crop the centre, normalise. Raises ValueError for a value out of range.

    Args:
        resize: short side after resizing, in pixels (``crop`` to 4096).
        crop: side of the square that is cut from the middle, in pixels.
        interpolation: ``bicubic``, ``bilinear`` or ``lanczos``; all antialiased.
        mean, std: per RGB channel, on the scale 0..1.
        resize_type: ``crop`` keeps the aspect ratio; ``standard`` stretches both sides to ``resize``, and the
            crop is then taken from that square; ``fit_to_window`` scales the whole picture so that its long
            side is ``resize``, puts it top left, and fills the rest of the square with ``pad_value``;
            ``fit_to_window_letterbox`` does so in the middle.
        pad_value: level 0..255 of what is filled.
    """

    resize: int
    crop: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize_type: str = "crop"
    pad_value: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize <= _LARGEST_SIDE:
            raise ValueError(f"preprocessing: 1 <= crop <= resize <= {_LARGEST_SIDE} must hold")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"preprocessing: interpolation must be one of {', '.join(_FILTERS)}")
        if self.resize_type not in _RESIZE_TYPES:
            raise ValueError(f"preprocessing: resize_type must be one of {', '.join(_RESIZE_TYPES)}")
        if self.resize_type in _WHOLE and self.crop != self.resize:
            raise ValueError(
                "preprocessing: where the whole picture is fitted, crop and resize must be equal"
            )
        if not 0 <= self.pad_value <= 255:
            raise ValueError("preprocessing: pad_value must be 0 to 255")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"preprocessing: {name} must be three finite numbers")
        if min(self.std) <= 0:
            raise ValueError("preprocessing: std must be positive")

    @classmethod
    def from_manifest(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Read the manifest's ``preprocessing`` object. Raises ValueError naming what is wrong."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(fields) - known:
            raise ValueError(f"preprocessing: unknown fields {', '.join(sorted(unknown))}")
        try:
            return cls(
                resize=int(fields["resize"]),
                crop=int(fields["crop"]),
                interpolation=str(fields.get("interpolation", "bicubic")),
                mean=_triple(fields["mean"]),
                std=_triple(fields["std"]),
                resize_type=str(fields.get("resize_type", "crop")),
                pad_value=int(fields.get("pad_value", 0)),
            )
        except KeyError as error:
            raise ValueError(f"preprocessing: {error.args[0]} is missing") from error
        except TypeError as error:
            raise ValueError("preprocessing: a field has the wrong type") from error

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's ``preprocessing`` object."""
        fields = dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if self.resize_type not in _WHOLE:
            del fields["pad_value"]
        return fields

    @property
    def target(self) -> tuple[int, int]:
        """What to give :func:`decode_image` as its target."""
        return self.resize, self.resize

    @property
    def keeps_whole(self) -> bool:
        """Whether nothing of a picture is cut off, so that it has a :meth:`placement`."""
        return self.resize_type in _WHOLE or (self.resize_type == "standard" and self.crop == self.resize)

    def placement(self, width: int, height: int) -> Placement:
        """Where a picture of ``width`` x ``height`` lies in the input, at least one pixel wide and high.

        Raises ValueError if the input does not show the whole picture.
        """
        if not self.keeps_whole:
            raise ValueError("preprocessing: only of a picture that is shown whole is it known where it lies")
        if self.resize_type == "standard":
            return Placement(0, 0, self.resize, self.resize)
        scale = self.resize / max(width, height)
        across, down = max(1, round(width * scale)), max(1, round(height * scale))
        if self.resize_type == "fit_to_window":
            return Placement(0, 0, across, down)
        # Of an odd rest the smaller half comes first, as exporters of letterboxed networks have it.
        return Placement((self.resize - across) // 2, (self.resize - down) // 2, across, down)

    def in_picture(self, boxes: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
        """Boxes (N, 4), corners x1, y1, x2, y2 in pixels of the input, in those of the picture of ``width`` x
        ``height``, cut off at its edges.

        Raises ValueError as :meth:`placement`.
        """
        place = self.placement(width, height)
        scale = np.array([width / place.width, height / place.height] * 2)
        moved = (boxes - [place.left, place.top] * 2) * scale
        inside: npt.NDArray[Any] = np.clip(moved, 0, [width, height] * 2)
        return inside


def preprocess(image: DecodedImage, spec: Preprocessing) -> npt.NDArray[np.float32]:
    """float32 [3, crop, crop]: resized, cropped, ``(value / 255 - mean) / std``, channels first, RGB.

    The long side becomes ``int(resize * long / short)``, or ``resize`` too where both are stretched; the crop
    starts at ``round((side - crop) / 2)``. Only what the crop shows is resized: its levels are those of the
    whole picture resized and cut, but for the rounding of values halfway between levels (by 1, seldom 2; a
    thousandth of a level on average). Where the aspect ratio is kept, of a picture longer than 4 : 1, whose
    ends the crop never reaches, the middle 4 : 1 is resized, so that the cost does not depend on it.
    """
    if spec.resize_type in _WHOLE:
        return _fit(image, spec)
    pixels = np.asarray(_resized_crop(image, spec))
    table = _table(spec)
    out = np.empty((3, spec.crop, spec.crop), dtype=np.float32)
    for channel in range(3):
        # All levels are in the table; "clip" spares NumPy a copy that guards against those that are not.
        np.take(table[channel], pixels[:, :, channel], out=out[channel], mode="clip")
    return out


def _resized_crop(image: DecodedImage, spec: Preprocessing) -> Image.Image:
    source, size = _resizing(image, spec)
    left, top = (round((side - spec.crop) / 2) for side in size)
    right, bottom = left + spec.crop, top + spec.crop
    filtered = _FILTERS[spec.interpolation]
    if source.size == size:
        return source.crop((left, top, right, bottom))
    if size == (spec.crop, spec.crop):
        return source.resize(size, filtered)
    across, down = source.width / size[0], source.height / size[1]
    # The filter reaches beyond the box into its surroundings, as it would with the whole picture.
    shown = (left * across, top * down, min(right * across, source.width), min(bottom * down, source.height))
    return source.resize((spec.crop, spec.crop), filtered, box=shown)


def _fit(image: DecodedImage, spec: Preprocessing) -> npt.NDArray[np.float32]:
    place = spec.placement(image.width, image.height)
    pixels = np.asarray(image.image.resize((place.width, place.height), _FILTERS[spec.interpolation]))
    rows, columns = slice(place.top, place.top + place.height), slice(place.left, place.left + place.width)
    table = _table(spec)
    out = np.empty((3, spec.crop, spec.crop), dtype=np.float32)
    for channel in range(3):
        out[channel] = table[channel, spec.pad_value]
        out[channel, rows, columns] = table[channel][pixels[:, :, channel]]
    return out


def _resizing(image: DecodedImage, spec: Preprocessing) -> tuple[Image.Image, tuple[int, int]]:
    """The part that is resized, and the width and height that it gets."""
    if spec.resize_type == "standard":
        return image.image, (spec.resize, spec.resize)
    source, width, height = _middle(image)
    short, long = min(width, height), max(width, height)
    long_side = int(spec.resize * long / short)
    return source, (spec.resize, long_side) if width <= height else (long_side, spec.resize)


def _middle(image: DecodedImage) -> tuple[Image.Image, int, int]:
    """The part that is resized, and its size in pixels of the original."""
    width, height = image.width, image.height
    source = image.image
    if max(width, height) <= _LONGEST_ASPECT * min(width, height):
        return source, width, height
    columns, rows = source.size
    keep = _LONGEST_ASPECT * min(columns, rows)
    left, top = max(0, (columns - keep) // 2), max(0, (rows - keep) // 2)
    source = source.crop((left, top, min(columns, left + keep), min(rows, top + keep)))
    return source, *source.size


@functools.lru_cache(maxsize=64)
def _table(spec: Preprocessing) -> npt.NDArray[np.float32]:
    """float32 [3, 256]: the normalised value of each level, rounded once from double precision."""
    levels = np.arange(256, dtype=np.float64) / 255
    mean, std = np.array(spec.mean)[:, None], np.array(spec.std)[:, None]
    table: npt.NDArray[np.float32] = ((levels - mean) / std).astype(np.float32)
    table.setflags(write=False)
    return table


def _triple(values: Any) -> tuple[float, float, float]:
    if isinstance(values, str) or len(values) != 3:
        raise TypeError
    first, second, third = (float(value) for value in values)
    return first, second, third
