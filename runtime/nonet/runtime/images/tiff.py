"""TIFF: the first page, in the compressions whose decoders notice missing or damaged data.

Fax codes and JPEG inside TIFF are left out: what is missing there is filled in silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, truncated, unsupported
from nonet.runtime.images.tags import ORIENTATION, orientation_of, read_first_directory

_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _PROFILE = 256, 257, 259, 277, 34675
_STRIP_OFFSETS, _STRIP_LENGTHS, _TILE_OFFSETS, _TILE_LENGTHS = 273, 279, 324, 325
_PIECES_LIMIT: Final = 1 << 20
_COMPRESSIONS: Final = frozenset({1, 5, 8, 32773, 32946})


def inspect_tiff(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Read the first tag directory and check that every strip or tile lies inside the file.

    Accepted compressions: none, LZW, Deflate, PackBits. Raises InvalidArgument for a cut or
    damaged file, PayloadTooLarge from the limits, UndecodableMedia for other compressions.
    """
    directory = read_first_directory(
        data,
        {
            **dict.fromkeys((_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, ORIENTATION), 1),
            **dict.fromkeys((_STRIP_OFFSETS, _STRIP_LENGTHS, _TILE_OFFSETS, _TILE_LENGTHS), _PIECES_LIMIT),
            _PROFILE: limits.profile_bytes,
        },
    )
    if directory is None:
        raise corrupt("the TIFF header is damaged")
    tags, following = directory
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise corrupt("a TIFF without a size")
    (width,), (height,) = tags[_WIDTH], tags[_HEIGHT]
    limits.check_size(width, height)
    if tags.get(_SAMPLES, (1,))[0] > 4:
        raise unsupported("a TIFF with more than four channels is not decoded")
    if tags.get(_COMPRESSION, (1,))[0] not in _COMPRESSIONS:
        raise unsupported("this compression of TIFF is not decoded")
    _check_pieces(tags, len(data))
    frames = 2 if following else 1
    limits.check_frames(frames)
    if orientation_of(tags) >= 5:
        width, height = height, width
    return ImageHeader(
        format="TIFF",
        width=width,
        height=height,
        payload=data,
        orientation=1,  # Pillow turns this one format upright itself
        profile=bytes(value & 0xFF for value in tags.get(_PROFILE, ())),
        frames=frames,
    )


def _check_pieces(tags: Mapping[int, tuple[int, ...]], size: int) -> None:
    tiled = _TILE_OFFSETS in tags
    offsets = tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    lengths = tags.get(_TILE_LENGTHS if tiled else _STRIP_LENGTHS, ())
    if not offsets or len(offsets) != len(lengths):
        raise corrupt("a TIFF that does not say where its pixels are")
    if any(offset + length > size for offset, length in zip(offsets, lengths, strict=True)):
        raise truncated("pixels of the TIFF are missing")
