"""WebP: the RIFF chunks are walked, so that sizes and frames are known before decoding."""

from __future__ import annotations

import struct
from typing import Final

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, truncated
from nonet.runtime.images.sniffing import refuse_archive
from nonet.runtime.images.tags import exif_orientation

_START_CODE: Final = b"\x9d\x01\x2a"
_LOSSLESS_MARK: Final = 0x2F


def inspect_webp(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Walk the chunks of the RIFF container.

    Raises Refusal for a file that is cut off, damaged, over a limit, or an archive too.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    end = 8 + size
    if end > len(data):
        raise truncated("the WebP file is shorter than it says")
    canvas: tuple[int, int] | None = None
    picture: tuple[int, int] | None = None
    orientation, profile, frames = 1, b"", 0
    position = 12
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        position = start + length + length % 2
        if start + length > end:
            raise truncated("a WebP chunk is incomplete")
        match kind:
            case b"VP8X" if length >= 10:
                canvas = _three_bytes(data, start + 4) + 1, _three_bytes(data, start + 7) + 1
                limits.check_size(*canvas)
            case b"VP8 " | b"VP8L" if picture is None:
                picture = _lossy_size(data, start) if kind == b"VP8 " else _lossless_size(data, start)
                limits.check_size(*picture)
            case b"ANMF":
                frames += 1
                limits.check_frames(frames)
            case b"EXIF":
                orientation = exif_orientation(data[start : start + length])
            case b"ICCP" if length <= limits.profile_bytes:
                profile = data[start : start + length]
            case _:
                pass
    if picture is None and not (frames and canvas):
        raise truncated("a WebP file without pixel data")
    refuse_archive(data, end)
    width, height = canvas or picture or (0, 0)
    return ImageHeader(
        format="WEBP",
        width=width,
        height=height,
        payload=data[:end],
        orientation=orientation,
        profile=profile,
        frames=max(1, frames),
    )


def _three_bytes(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 3], "little")


def _lossy_size(data: bytes, start: int) -> tuple[int, int]:
    header = data[start : start + 10]
    if len(header) < 10 or header[3:6] != _START_CODE:
        raise corrupt("a WebP frame header is damaged")
    width, height = struct.unpack_from("<HH", header, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(data: bytes, start: int) -> tuple[int, int]:
    header = data[start : start + 5]
    if len(header) < 5 or header[0] != _LOSSLESS_MARK:
        raise corrupt("a WebP frame header is damaged")
    bits = int.from_bytes(header[1:5], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
