"""BMP: uncompressed pictures whose pixels are all there."""

from __future__ import annotations

import struct
from typing import Final

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, truncated, unsupported
from nonet.runtime.images.sniffing import refuse_archive

_HEADERS: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
_DEPTHS: Final = frozenset({1, 4, 8, 16, 24, 32})
_UNCOMPRESSED, _BITFIELDS = 0, 3


def inspect_bmp(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Read the two headers and compare the sizes with the file's.

    Run-length and embedded compression are not decoded. Raises Refusal for a file that is
    cut off, damaged, over a limit, compressed, or an archive too.
    """
    if len(data) < 26:
        raise truncated("the headers of the BMP are missing")
    pixels_at, header_size = struct.unpack_from("<II", data, 10)
    if header_size not in _HEADERS:
        raise unsupported(f"a BMP with a header of {header_size} bytes is not decoded")
    if len(data) < 14 + header_size:
        raise truncated("the headers of the BMP are missing")
    compression = _UNCOMPRESSED
    if header_size == 12:
        width, height, planes, depth = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, planes, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    limits.check_size(width, height)
    if planes != 1 or depth not in _DEPTHS:
        raise unsupported(f"a BMP of {planes} planes and {depth} bits is not decoded")
    if compression not in (_UNCOMPRESSED, _BITFIELDS):
        raise unsupported("a compressed BMP is not decoded")
    end = pixels_at + (width * depth + 31) // 32 * 4 * height
    if end > len(data):
        raise truncated("pixels of the BMP are missing")
    if pixels_at < 14 + header_size:
        raise corrupt("the pixels of the BMP lie inside its header")
    refuse_archive(data, end)
    return ImageHeader(format="BMP", width=width, height=height, payload=data)
