"""Pixels that a decoder made up because the file had none: found after decoding, where a format allows it.

A JPEG scan or the compressed rows of a PNG may end early although every length and marker is in order.
libjpeg then leaves mid-grey and Pillow black. So only a picture that ends in just that colour is looked at
again, at a cost that others do not pay.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from PIL import Image

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import corrupt, truncated

Reload = Callable[[bytes], Image.Image]
"""Decodes another version of the file's payload, as small as the format can."""

_FILLER: Final = bytes(range(0x41, 0x61))
_EOI_LENGTH: Final = 2
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_INTERLACE: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_BLOCK: Final = 1 << 16


def check_whole(image: Image.Image, header: ImageHeader, reload: Reload) -> None:
    """Raises Refusal (truncated) if the last pixels of ``image`` are not in the file."""
    if header.mcu is not None and _ends_in_grey(image, header.mcu, header.width, header.height):
        _check_jpeg_scan(header.payload, reload)
    elif header.format == "PNG" and (_is_interlaced(header.payload) or _ends_in_black(image)):
        _check_png_rows(header.payload)


def _ends_in_grey(image: Image.Image, mcu: tuple[int, int], width: int, height: int) -> bool:
    """Whether the brightness of the last-coded unit is the mid-grey of a block without data."""
    scale = -(-width // image.width)
    left, top = (width - 1) // mcu[0] * mcu[0] // scale, (height - 1) // mcu[1] * mcu[1] // scale
    last = image.crop((left, top, *image.size))
    levels = (last.getchannel("K") if image.mode == "CMYK" else last.convert("L")).tobytes()
    return min(levels) >= 125 and max(levels) <= 130


def _check_jpeg_scan(payload: bytes, reload: Reload) -> None:
    """Put bytes in front of the end marker: a whole scan ignores them, a short one decodes them."""
    filled = payload[:-_EOI_LENGTH] + _FILLER + payload[-_EOI_LENGTH:]
    if reload(payload).tobytes() != reload(filled).tobytes():
        raise truncated("pixels are missing")


def _ends_in_black(image: Image.Image) -> bool:
    last = image.crop((0, image.height - 1, image.width, image.height))
    return last.getbbox(alpha_only=False) is None


def _is_interlaced(payload: bytes) -> bool:
    return payload[28] == 1


def _check_png_rows(payload: bytes) -> None:
    width, height, depth, colour = struct.unpack_from(">IIBB", payload, 16)
    bits = depth * _CHANNELS[colour]
    passes = _INTERLACE if _is_interlaced(payload) else ((0, 0, 1, 1),)
    missing = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * bits + 7) // 8)
    inflater = zlib.decompressobj()
    try:
        for body in _pixel_chunks(payload):
            produced = _BLOCK
            while missing > 0 and (body or produced == _BLOCK):  # a full block may hide more behind it
                produced = len(inflater.decompress(body, _BLOCK))
                missing -= produced
                body = inflater.unconsumed_tail
    except zlib.error as error:
        raise corrupt("its pixel data cannot be decompressed") from error
    if missing > 0:
        raise truncated("pixels are missing")


def _pixel_chunks(payload: bytes) -> Iterator[bytes]:
    position = 8
    while position < len(payload):
        length, kind = struct.unpack_from(">I4s", payload, position)
        if kind == b"IDAT":
            yield payload[position + 8 : position + 8 + length]
        position += 12 + length
