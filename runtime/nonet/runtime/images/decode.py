"""From untrusted bytes to RGB pixels.

The structure of the file is checked first (one module for each format); only then does Pillow decode it,
told which format to expect. No setting of Pillow is changed, so a cut file is never filled with grey, and
calls may run in any number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from nonet.runtime.errors import InsufficientStorage, InvalidArgument, ServingError
from nonet.runtime.images.bmp import inspect_bmp
from nonet.runtime.images.colour import on_white, to_rgb
from nonet.runtime.images.completeness import check_whole
from nonet.runtime.images.gif import inspect_gif
from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.jpeg import inspect_jpeg
from nonet.runtime.images.limits import ImageLimits, Refusal, corrupt, too_large, truncated, unsupported
from nonet.runtime.images.png import inspect_png
from nonet.runtime.images.sniffing import sniff
from nonet.runtime.images.tiff import inspect_tiff
from nonet.runtime.images.tiff_colour import read_page
from nonet.runtime.images.webp import inspect_webp

_INSPECTORS: Final[dict[str, Callable[[bytes, ImageLimits], ImageHeader]]] = {
    "BMP": inspect_bmp,
    "GIF": inspect_gif,
    "JPEG": inspect_jpeg,
    "PNG": inspect_png,
    "TIFF": inspect_tiff,
    "WEBP": inspect_webp,
}
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES: Final = frozenset({5, 6, 7, 8})
_OVERSAMPLING: Final = 2
_LARGE_PIXELS: Final = 8 << 20
_LARGE_AT_ONCE: Final = threading.BoundedSemaphore(2)


class DecodedImage:
    """An image in sRGB, upright.

    Args:
        image: the pixels, mode RGB; smaller than the original if a target allowed it.
        width, height: original size in pixels after EXIF orientation; coordinates in answers refer to it.
        format: what the content was, e.g. ``JPEG``.
        frames: frames or pages in the file, of which this is the first.
    """

    def __init__(self, image: Image.Image, width: int, height: int, format: str, frames: int = 1) -> None:  # noqa: A002
        self.image = image
        self.width = width
        self.height = height
        self.format = format
        self.frames = frames

    @functools.cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8 [height, width, 3], RGB."""
        return np.asarray(self.image)


def decode_image(
    data: bytes, *, limits: ImageLimits | None = None, target: tuple[int, int] | None = None
) -> DecodedImage:
    """Decode the first frame of an image file, upright and in sRGB (rules: :mod:`.colour`).

    Args:
        data: the file. Its format is found from its content: JPEG, PNG, WebP, GIF, BMP or TIFF.
        limits: bounds that are checked before any pixel is decoded.
        target: width and height that the caller will scale an upright picture down to cover. A JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, never below twice the target. Equal arguments give equal
            pixels.

    Raises InvalidArgument (400: ``IMAGE_TRUNCATED``, ``IMAGE_CORRUPT``, ``IMAGE_EMPTY``, ``IMAGE_ANIMATED``),
    PayloadTooLarge (413: ``IMAGE_TOO_LARGE``), UndecodableMedia (415: ``IMAGE_UNSUPPORTED``) and
    InsufficientStorage (507) if memory runs out.
    """
    limits = limits or ImageLimits()
    if not data:
        raise InvalidArgument("image: the file is empty", param="image", code="IMAGE_EMPTY")
    try:
        return _decode(data, limits, target)
    except Refusal as refusal:
        raise refusal.as_image() from refusal


def _decode(data: bytes, limits: ImageLimits, target: tuple[int, int] | None) -> DecodedImage:
    if len(data) > limits.encoded_bytes:
        raise too_large(f"{len(data)} bytes are more than the limit of {limits.encoded_bytes} bytes")
    kind = sniff(data)
    header = _INSPECTORS[kind](data, limits)
    swapped = header.orientation in _SWAPS_SIDES
    wanted = (target[1], target[0]) if target and swapped else target
    try:
        image = _pixels(header, wanted)
        if header.orientation in _TURNS:
            image = image.transpose(_TURNS[header.orientation])
    except (Refusal, ServingError):
        raise
    except MemoryError as error:
        raise InsufficientStorage("there is not enough memory for this image now") from error
    except Exception as error:  # whatever a decoder makes of hostile bytes is a property of those bytes
        raise _refusal(error) from error
    width, height = header.width, header.height
    if swapped:
        width, height = height, width
    return DecodedImage(image, width, height, header.format, header.frames)


def _refusal(error: Exception) -> Refusal:
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return too_large("it has more pixels than allowed")
    if "unsupported" in text:
        return unsupported("its pixels are stored in a way that is not decoded")
    if "truncated" in text or "not enough" in text:
        return truncated("pixels are missing")
    return corrupt("its pixels cannot be decoded")


def _pixels(header: ImageHeader, target: tuple[int, int] | None) -> Image.Image:
    layout = header.layout
    with _LARGE_AT_ONCE if _memory_pixels(header, target) > _LARGE_PIXELS else contextlib.nullcontext():
        if layout is not None:
            page = read_page(header.payload, layout)
            return on_white(page.colours, page.alpha, header.profile)
        image = _load(header.payload, header, target)
        check_whole(image, header, lambda payload: _load(payload, header, (1, 1)))
        return to_rgb(image, header)


def _memory_pixels(header: ImageHeader, target: tuple[int, int] | None) -> int:
    """How many pixels are in memory while decoding; a JPEG of several scans keeps all its coefficients."""
    scale = 1
    if header.mcu is not None and target is not None:
        ratio = min(header.width // target[0], header.height // target[1]) // _OVERSAMPLING
        scale = max((step for step in (8, 4, 2) if step <= ratio), default=1)
    return header.width * header.height // scale**2


def _load(payload: bytes, header: ImageHeader, target: tuple[int, int] | None) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(payload), formats=[header.format])
    if image.size != (header.width, header.height):
        raise corrupt("its size is stated twice and differently")
    if target is not None and header.format == "JPEG":
        image.draft(None, (target[0] * _OVERSAMPLING, target[1] * _OVERSAMPLING))
    expected = image.size
    image.load()
    if image.size != expected:
        raise corrupt("its size is stated twice and differently")
    return image
