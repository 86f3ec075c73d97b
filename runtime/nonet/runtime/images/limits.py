"""Limits on the size and format of images, and the ways in which one is refused.

Limits on size are decided from the header, before any pixel is decoded. Why a picture is refused is told as a
:class:`Refusal` first: only who asked for the picture knows which field of the request it came in.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, ServingError, UndecodableMedia

ACCEPTED: Final = "JPEG, PNG, WebP, GIF, BMP or TIFF"
"""The accepted formats as messages name them."""

_PILLOW_WARNS_ABOVE: Final = 89_478_485


@dataclasses.dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds for one encoded image. Raises ValueError for a bound outside its range.

    Args:
        encoded_bytes: size of the file.
        pixels: width times height of the canvas (1 to 89,478,485: above that Pillow has a limit of its own).
            Decoding takes 4 to 12 bytes a pixel for a moment; much less for a baseline JPEG with a target.
            No more than two large pictures are decoded at a time, whatever the number of threads.
        side: longest side in pixels.
        frames: frames of an animation, of which only the first is decoded.
        animation: False refuses animated files with 400 instead of taking their first frame.
        scans: passes over the picture of a progressive JPEG; each costs time in proportion to the pixels.
        profile_bytes: size of an embedded ICC profile after decompression; a larger one is ignored.
    """

    encoded_bytes: int = 32 << 20
    pixels: int = 50_331_648
    side: int = 32_768
    frames: int = 2_000
    animation: bool = True
    scans: int = 64
    profile_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0 and field.name != "animation":
                raise ValueError(f"ImageLimits.{field.name} must be positive")
        if self.pixels > _PILLOW_WARNS_ABOVE:
            raise ValueError(f"ImageLimits.pixels must be at most {_PILLOW_WARNS_ABOVE}")

    def check_size(self, width: int, height: int) -> None:
        """Raises Refusal for a picture over the limits, and for one without pixels."""
        if width <= 0 or height <= 0:
            raise corrupt(f"its header says {width} x {height} pixels")
        if width * height > self.pixels:
            raise too_large(f"{width} x {height} pixels are more than the limit of {self.pixels} pixels")
        if max(width, height) > self.side:
            raise too_large(f"{width} x {height} pixels have a side longer than the limit of {self.side}")

    def check_frames(self, frames: int) -> None:
        """Raises Refusal for an animation where none is allowed, and for a long one."""
        if frames > 1 and not self.animation:
            raise Refusal("animated", "it is animated; send a still picture")
        if frames > self.frames:
            raise too_large(f"it has more than the limit of {self.frames} frames")


class Refusal(Exception):
    """Why a picture is refused, before it has the name of a field.

    Args:
        kind: ``truncated`` (bytes are missing), ``corrupt`` (the file contradicts itself or its checksums),
            ``too_large`` (over a limit), ``unsupported`` (sound, but of a kind that is not decoded) or
            ``animated`` (where only stills are taken).
        what: the reason, to follow the name of a field and a colon.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what

    def as_image(self) -> ServingError:
        """The error of a request whose field ``image`` holds the picture."""
        match self.kind:
            case "truncated":
                text = f"image: the file is cut off ({self.what}); send the whole file"
                return InvalidArgument(text, param="image", code="IMAGE_TRUNCATED")
            case "corrupt":
                text = f"image: the file is damaged ({self.what})"
                return InvalidArgument(text, param="image", code="IMAGE_CORRUPT")
            case "animated":
                return InvalidArgument(f"image: {self.what}", param="image", code="IMAGE_ANIMATED")
            case "too_large":
                return PayloadTooLarge(f"image: {self.what}", param="image", code="IMAGE_TOO_LARGE")
        text = f"image: {self.what}; accepted are {ACCEPTED}"
        return UndecodableMedia(text, param="image", code="IMAGE_UNSUPPORTED")


def truncated(what: str) -> Refusal:
    """The file ends before its pixels do."""
    return Refusal("truncated", what)


def corrupt(what: str) -> Refusal:
    """The file contradicts itself or its checksums."""
    return Refusal("corrupt", what)


def too_large(what: str) -> Refusal:
    """Over a limit."""
    return Refusal("too_large", what)


def unsupported(what: str) -> Refusal:
    """A kind of file, or a variant of an accepted one, that is not decoded."""
    return Refusal("unsupported", what)
