"""Pictures as files. The 16-bit writers are ours, since Pillow has none for colour."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final, Protocol, cast

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from nonet.runtime.tensors import Array
from nonet.services.raw_image.shot import EXIF_DIRECTORY, NO_SHOT, Shot

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
_EXIF_MARK: Final = b"Exif\x00\x00"
_PROFILE_TIME: Final = 24
_SOMEWHERE: Final = 1 << 24  # an offset of four bytes, until it is known
_SOME_DAY: Final = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


class Sink(Protocol):
    """Where a file is written to, from its first byte to its last."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


def write_picture(sink: Sink, pixels: Array, output: str, *, srgb: bool, shot: Shot = NO_SHOT) -> None:
    """Write RGB pixels [height, width, 3], uint8 or uint16 as :data:`DEPTHS` says, as a file.

    ``srgb`` says in the file that they are sRGB: in PNG by its chunk, in TIFF and JPEG by a profile, in all
    by Exif; without it nothing is said of their colours. ``shot`` is carried over. Pictures of 16 bits are
    written strip by strip; of those of 8 bits the codec keeps a copy.
    """
    exif = shot.block(srgb=srgb)
    if output == "png16":
        _png16(sink, pixels, exif, srgb)
        return
    if output == "tiff16":
        _tiff16(sink, pixels, shot, srgb)
        return
    image = Image.fromarray(np.ascontiguousarray(pixels))
    file = cast("IO[bytes]", sink)  # the codecs write and flush, no more
    if output == "jpeg":
        profile = srgb_profile() if srgb else None
        options: dict[str, Any] = {"quality": _JPEG_QUALITY, "subsampling": 0, "icc_profile": profile}
        image.save(file, "JPEG", exif=_EXIF_MARK + exif, **options)
        return
    chunks = PngImagePlugin.PngInfo()
    if srgb:
        chunks.add(b"sRGB", b"\x00")
    image.save(file, "PNG", compress_level=_COMPRESSION, pnginfo=chunks, exif=_EXIF_MARK + exif)


@functools.cache
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same at every call: without the time at which it was made."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:_PROFILE_TIME] + _SOME_DAY + made[_PROFILE_TIME + len(_SOME_DAY) :]


def _png16(sink: Sink, pixels: Array, exif: bytes, srgb: bool) -> None:
    """Each row is stored as its difference to the row above, which photographs compress well in."""
    height, width, _ = pixels.shape
    deflater = zlib.compressobj(_COMPRESSION)
    sink.write(_PNG_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)))
    if srgb:
        sink.write(_chunk(b"sRGB", b"\x00"))
    sink.write(_chunk(b"eXIf", exif))
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


def _tiff16(sink: Sink, pixels: Array, shot: Shot, srgb: bool) -> None:
    """Baseline TIFF 6.0, RGB, uncompressed, one strip, with what Exif says of the shot."""
    height, width, _ = pixels.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257], tags[258], tags[259], tags[262] = width, height, (16, 16, 16), 1, 2
    tags[273], tags[277], tags[278], tags[279], tags[284] = _SOMEWHERE, 3, height, height * width * 6, 1
    exif = Image.Exif()
    exif.load(shot.block(srgb=srgb))
    for tag, value in exif.items():
        if tag != EXIF_DIRECTORY:
            tags[tag] = value
    tags[EXIF_DIRECTORY] = exif.get_ifd(EXIF_DIRECTORY)
    if srgb:
        tags[34675], tags.tagtype[34675] = srgb_profile(), 7
    head = bytearray(b"II\x2a\x00\x08\x00\x00\x00" + tags.tobytes(8))
    head += b"\x00" * (len(head) % 2)
    entry = head.index(struct.pack("<HHI", 273, 4, 1))
    struct.pack_into("<I", head, entry + 8, len(head))
    sink.write(bytes(head))
    for strip in _strips(pixels):
        sink.write(strip.astype("<u2", copy=False).tobytes())
