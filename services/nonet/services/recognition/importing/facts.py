"""What is known of a foreign network of pictures, and where it was read; None and "" mean "not known"."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from nonet.runtime.network_import import NetworkRefused

INTERPOLATIONS: Final = ("bilinear", "bicubic", "lanczos")
LARGEST_SIDE: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Read from an ONNX file, from files beside it or from options.

    Args:
        system: who exported it, e.g. ``timm``.
        size: side of the network's square, in pixels.
        resize: pixels of the shorter side before the crop, of both sides with ``fit`` stretch.
        fit: ``crop``, ``stretch``, ``window`` or ``letterbox``.
        pad: level 0..255 of what ``window`` and ``letterbox`` fill.
        interpolation: one of INTERPOLATIONS.
        mean, std: per RGB channel, on the scale 0..1.
        channels: ``rgb`` or ``bgr``.
        layout: ``nchw`` or ``nhwc``.
        activation: ``logits``, ``softmax`` or ``sigmoid``.
        labels: names by index, empty if there are none.
        classes: how many.
        licence: of the weights.
        read_from: names of the files that were read.
    """

    system: str = ""
    size: int | None = None
    resize: int | None = None
    fit: str = ""
    pad: int | None = None
    interpolation: str = ""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: str = ""
    layout: str = ""
    activation: str = ""
    labels: tuple[str, ...] = ()
    classes: int | None = None
    licence: str = ""
    read_from: tuple[str, ...] = ()

    def over(self, other: Facts) -> Facts:
        """Both together; where they differ, these count."""
        values = {
            field.name: getattr(self, field.name)
            if getattr(self, field.name) not in (None, "", ())
            else getattr(other, field.name)
            for field in dataclasses.fields(self)
        }
        files = dict.fromkeys((*self.read_from, *other.read_from))
        return Facts(**(values | {"read_from": tuple(files)}))


def triple(value: Any, what: str) -> tuple[float, float, float]:
    """Three finite numbers; one number stands for all three. Raises NetworkRefused."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value] * 3
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(_is_number(each) for each in value):
        raise NetworkRefused(f"{what} is not three numbers: only pictures of three colours can be served")
    first, second, third = (float(each) for each in value)
    return first, second, third


def side(value: Any, what: str) -> int:
    """A number of pixels from 1 to LARGEST_SIDE. Raises NetworkRefused."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIDE:
        raise NetworkRefused(f"{what} is {value!r}, which is not a number of pixels from 1 to {LARGEST_SIDE}")
    return value


def square(height: Any, width: Any, what: str) -> int:
    """The side of a square. Raises NetworkRefused for any other shape."""
    if height != width:
        raise NetworkRefused(f"{what} is {height} x {width}: only square inputs can be served")
    return side(height, what)


def names(value: Any, what: str) -> tuple[str, ...]:
    """Labels from a list, or from a mapping of indices 0..n-1 to names. Raises NetworkRefused."""
    if isinstance(value, Mapping):
        try:
            by_index = {int(key): name for key, name in value.items()}
        except (TypeError, ValueError):
            raise NetworkRefused(f"{what}: its keys are not indices of classes") from None
        if sorted(by_index) != list(range(len(value))):
            raise NetworkRefused(f"{what}: its indices do not run from 0 to {len(value) - 1}")
        value = [by_index[index] for index in range(len(value))]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise NetworkRefused(f"{what} is not a list of names")
    labels = tuple(" ".join(each.split()) for each in value)
    placeholders = all(label.upper() in (f"LABEL_{index}", str(index)) for index, label in enumerate(labels))
    return () if placeholders else labels


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
