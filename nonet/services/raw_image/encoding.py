"""Pictures as files. The 16-bit writers are ours, since Pillow has none for colour."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

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


def encode_picture(pixels: Array, output: str, *, srgb: bool) -> bytes:
    """RGB pixels [height, width, 3], uint8 or uint16 as :data:`DEPTHS` says, as a file.

    ``srgb`` says in the file that they are sRGB; without it nothing is said of their colours.
    """
    if output == "png16":
        return _png16(pixels, srgb)
    if output == "tiff16":
        return _tiff16(pixels)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if output == "jpeg":
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _png16(pixels: Array, srgb: bool) -> bytes:
    """Each row is stored as its difference to the row above, which photographs compress well in."""
    height, width, _ = pixels.shape
    deflater = zlib.compressobj(_COMPRESSION)
    parts = [_PNG_SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))]
    if srgb:
        parts.append(_chunk(b"sRGB", b"\x00"))
    above = np.zeros((1, width * 6), dtype=np.uint8)
    for top in range(0, height, _STRIP_ROWS):
        rows = pixels[top : top + _STRIP_ROWS].astype(">u2").reshape(-1, width * 3).view(np.uint8)
        filtered = np.empty((len(rows), width * 6 + 1), dtype=np.uint8)
        filtered[:, 0] = _FILTER_UP
        filtered[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        if packed := deflater.compress(filtered.tobytes()):
            parts.append(_chunk(b"IDAT", packed))
    parts += [_chunk(b"IDAT", deflater.flush()), _chunk(b"IEND", b"")]
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _tiff16(pixels: Array) -> bytes:
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
    return b"".join([head, struct.pack("<HHHH", 16, 16, 16, 0), pixels.astype("<u2", copy=False).tobytes()])
