"""Pictures as files. The 16-bit writers are ours, since Pillow has none for colour."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO, Final, Protocol, cast

import numpy as np
from PIL import Image

from nonet.runtime.tensors import Array

CONTENT_TYPES: Final = {
    "png": "image/png",
    "png16": "image/png",
    "tiff16": "image/tiff",
    "jpeg": "image/jpeg",
}
DEPTHS: Final = {"png": 8, "png16": 16, "tiff16": 16, "jpeg": 8}
_JPEG_QUALITY: Final = 95
_COMPRESSION: Final = 3
_STRIP_ROWS: Final = 64
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_FILTER_UP: Final = 2


class Sink(Protocol):
    """Where a file is written to, from its first byte to its last."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


def write_picture(sink: Sink, pixels: Array, output: str, *, srgb: bool) -> None:
    """Write RGB pixels [height, width, 3], uint8 or uint16 as :data:`DEPTHS` says, as a file.

    ``srgb`` says in the file that they are sRGB; without it nothing is said of their colours. Pictures of 16
    bits are written strip by strip; of those of 8 bits the codec keeps a copy.
    """
    if output == "png16":
        _png16(sink, pixels, srgb)
    elif output == "tiff16":
        _tiff16(sink, pixels)
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        file = cast("IO[bytes]", sink)  # the codecs write and flush, no more
        if output == "jpeg":
            image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        else:
            image.save(file, "PNG", compress_level=_COMPRESSION)


def _png16(sink: Sink, pixels: Array, srgb: bool) -> None:
    """Each row is stored as its difference to the row above, which photographs compress well in."""
    height, width, _ = pixels.shape
    deflater = zlib.compressobj(_COMPRESSION)
    sink.write(_PNG_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)))
    if srgb:
        sink.write(_chunk(b"sRGB", b"\x00"))
    above = np.zeros((1, width * 6), dtype=np.uint8)
    for strip in _strips(pixels):
        rows = strip.astype(">u2", order="C").reshape(-1, width * 3).view(np.uint8)
        filtered = np.empty((len(rows), width * 6 + 1), dtype=np.uint8)
        filtered[:, 0] = _FILTER_UP
        filtered[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        if packed := deflater.compress(filtered.tobytes()):
            sink.write(_chunk(b"IDAT", packed))
    sink.write(_chunk(b"IDAT", deflater.flush()) + _chunk(b"IEND", b""))


def _strips(pixels: Array) -> Iterator[Array]:
    """The rows, some at a time."""
    for top in range(0, len(pixels), _STRIP_ROWS):
        yield pixels[top : top + _STRIP_ROWS]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _tiff16(sink: Sink, pixels: Array) -> None:
    """Baseline TIFF 6.0, RGB, uncompressed, one strip."""
    height, width, _ = pixels.shape
    size = height * width * 6
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 0),  # bits per sample, put behind the directory
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 0),  # where the pixels start
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, size),
        (284, 3, 1, 1),
    ]
    behind = 8 + 2 + 12 * len(entries) + 4
    start = behind + 8
    values = {258: behind, 273: start}
    directory = b"".join(
        struct.pack("<HHII", tag, kind, count, values.get(tag, value)) for tag, kind, count, value in entries
    )
    head = b"II\x2a\x00" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0)
    sink.write(head + struct.pack("<HHHH", 16, 16, 16, 0))
    for strip in _strips(pixels):
        sink.write(strip.astype("<u2", copy=False).tobytes())
