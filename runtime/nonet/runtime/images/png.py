"""PNG: every chunk is checked against its CRC; the decoder gets the chunks that make pixels and no others."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Final

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, truncated
from nonet.runtime.images.sniffing import refuse_archive
from nonet.runtime.images.tags import exif_orientation

_SIGNATURE_LENGTH: Final = 8
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY, _RGB, _PALETTE = 0, 2, 3
_KEPT: Final = frozenset({b"IHDR", b"IDAT", b"IEND"})
_PALETTE_CHUNKS: Final = frozenset({b"PLTE", b"tRNS"})
_CHUNK_LIMIT: Final = (1 << 31) - 1


@dataclasses.dataclass(slots=True)
class _Picture:
    width: int
    height: int
    depth: int
    colour: int
    orientation: int = 1
    profile: bytes = b""
    colour_key: tuple[int, ...] | None = None
    frames: int = 1
    has_data: bool = False


def inspect_png(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Walk the chunks up to IEND. Of an animated PNG the still picture for simple viewers is taken.

    Gamma and chromaticity chunks are ignored. Raises Refusal for a missing or damaged chunk,
    what is over a limit, and a file that is an archive too.
    """
    view = memoryview(data)
    kept = [view[:_SIGNATURE_LENGTH]]
    picture: _Picture | None = None
    position = _SIGNATURE_LENGTH
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise truncated("a PNG chunk or its end marker is missing")
        length, kind = struct.unpack_from(">I4s", data, position)
        body_end = position + 8 + length
        if length > _CHUNK_LIMIT:
            raise corrupt("a PNG chunk has an impossible length")
        if picture is None and (kind != b"IHDR" or length != 13):
            raise corrupt("a PNG must begin with its header")
        if body_end + 4 > len(data):
            raise truncated("a PNG chunk is incomplete")
        if zlib.crc32(view[position + 4 : body_end]) != struct.unpack_from(">I", data, body_end)[0]:
            raise corrupt("a PNG chunk does not match its checksum")
        body = view[position + 8 : body_end]
        if picture is None:
            picture = _header(body, limits)
        elif kind == b"IHDR":
            raise corrupt("a PNG has one header, this one has two")
        else:
            _note(picture, kind, body, limits)
        if kind in _KEPT or (kind in _PALETTE_CHUNKS and picture.colour == _PALETTE):
            kept.append(view[position : body_end + 4])
        position = body_end + 4
    if picture is None or not picture.has_data:
        raise truncated("a PNG without pixel data")
    refuse_archive(data, position)
    return ImageHeader(
        format="PNG",
        width=picture.width,
        height=picture.height,
        payload=b"".join(kept),
        orientation=picture.orientation,
        profile=picture.profile,
        frames=picture.frames,
        colour_key=picture.colour_key,
    )


def _header(body: memoryview, limits: ImageLimits) -> _Picture:
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise corrupt("a PNG header with values that do not exist")
    limits.check_size(width, height)
    return _Picture(width, height, depth, colour)


def _note(picture: _Picture, kind: bytes, body: memoryview, limits: ImageLimits) -> None:
    match kind:
        case b"IDAT":
            picture.has_data = True
        case b"eXIf":
            picture.orientation = exif_orientation(bytes(body))
        case b"iCCP":
            picture.profile = _profile(bytes(body), limits.profile_bytes)
        case b"tRNS":
            picture.colour_key = _colour_key(picture, bytes(body))
        case b"acTL" if len(body) == 8:
            picture.frames = max(1, struct.unpack_from(">I", body)[0])
            limits.check_frames(picture.frames)
        case _:
            pass


def _profile(body: bytes, limit: int) -> bytes:
    """The profile of an iCCP chunk, inflated no further than ``limit``; empty if larger or damaged."""
    name_end = body.find(b"\x00", 0, 80)
    if name_end < 0 or body[name_end + 1 : name_end + 2] != b"\x00":
        return b""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(body[name_end + 2 :], limit)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""


def _colour_key(picture: _Picture, body: bytes) -> tuple[int, ...] | None:
    """The transparent colour, scaled as the pixels will be.

    Colour pictures of 16 bits are decoded to their high bytes, which cannot be told apart from near colours:
    there the key is ignored.
    """
    if picture.colour == _GREY and len(body) == 2:
        (level,) = struct.unpack(">H", body)
        return (level if picture.depth == 16 else level * 255 // ((1 << picture.depth) - 1),)
    if picture.colour == _RGB and picture.depth == 8 and len(body) == 6:
        return struct.unpack(">HHH", body)
    return None
