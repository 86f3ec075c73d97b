"""The directories of a TIFF-based camera file, walked before LibRaw sees it.

Two things are decided here: whether it is a picture (a grey one is a mosaic, and neither is a camera file),
and whether the pixels that its directories speak of have a bearable size and lie inside the file. LibRaw
fills in what is missing in some formats without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images.tiff import COMPRESSIONS
from nonet.services.raw_image.limits import RawLimits, corrupt, truncated

_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _DIRECTORIES = 254, 256, 257, 262, 277, 330
_COMPRESSION, _DNG = 259, 50706
_SENSORS: Final = (32803, 34892)  # a colour filter array, linear raw
_OFFSETS: Final = ((273, 279), (324, 325))
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4}
_CODES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 13: "I"}
_WANTED: Final = frozenset(
    {_SUBFILE, _COMPRESSION, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _DIRECTORIES, 273, 279, 324, 325}
)
_MAX_DIRECTORIES: Final = 64
_MAX_COUNT: Final = 1 << 20
_GREYS: Final = (0, 1)
_COLOURS: Final = (2, 5, 6, 8, 9)

Tags = dict[int, tuple[int, ...]]


def is_mosaic(data: bytes) -> bool:
    """Whether the file is a grey picture of one channel and no camera's own.

    Names of cameras and dates make no camera file: converters copy them into what they write. What does is a
    mosaic that is said to be one, in this directory or one that belongs to it, the version of DNG, or that
    the grey picture is a smaller version of another.
    """
    order = "<" if data[:2] == b"II" else ">"
    directories = _directories(data, order)
    first = next(directories, {})
    return first.get(_PHOTOMETRIC, (-1,))[0] in _GREYS and _is_picture(first, directories)


def is_developed(data: bytes) -> bool:
    """Whether the file is a colour picture and no camera's own."""
    order = "<" if data[:2] == b"II" else ">"
    directories = _directories(data, order)
    first = next(directories, {})
    colours = first.get(_PHOTOMETRIC, (-1,))[0] in _COLOURS and first.get(_SAMPLES, (1,))[0] >= 3
    readable = first.get(_COMPRESSION, (1,))[0] in COMPRESSIONS
    return colours and readable and _is_picture(first, directories)


def _is_picture(first: Tags, others: Iterator[Tags]) -> bool:
    """Whether the first directory is a picture of its own, and not a smaller version of a sensor's mosaic."""
    if _DNG in first or first.get(_SUBFILE, (0,))[0] & 1:
        return False
    try:
        return not any(tags.get(_PHOTOMETRIC, (-1,))[0] in _SENSORS for tags in others)
    except InvalidArgument:
        return True  # what belongs to the picture is damaged, the picture need not be


def check_tree(data: bytes, limits: RawLimits) -> None:
    """Raises PayloadTooLarge for a directory over the limits, InvalidArgument for pixels outside the file."""
    order = "<" if data[:2] == b"II" else ">"
    for tags in _directories(data, order):
        width, height = tags.get(_WIDTH, (0,))[0], tags.get(_HEIGHT, (0,))[0]
        if width and height:
            limits.check_size(max(width, 2), max(height, 2))
        for offsets, lengths in _OFFSETS:
            pieces = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if any(offset + length > len(data) for offset, length in pieces):
                raise truncated("pixels are missing")


def _directories(data: bytes, order: str) -> Iterator[Tags]:
    """Every directory that is reachable, at most a few dozen. Raises InvalidArgument if one is cut off."""
    if len(data) < 8:
        raise truncated("its tag directory is missing")
    (first,) = struct.unpack_from(order + "I", data, 4)
    waiting, seen = [(first, True)], set[int]()
    while waiting:
        start, needed = waiting.pop(0)
        if start in seen or start == 0:
            continue
        if not needed and start + 2 > len(data):
            continue  # some cameras leave garbage where the offset of a further directory belongs
        if len(seen) >= _MAX_DIRECTORIES:
            raise corrupt("it has too many tag directories")
        seen.add(start)
        tags, following = _directory(data, order, start)
        waiting += [*((each, True) for each in tags.get(_DIRECTORIES, ())), (following, False)]
        yield tags


def _directory(data: bytes, order: str, start: int) -> tuple[Tags, int]:
    if start + 2 > len(data):
        raise truncated("a tag directory is missing")
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + entries * 12
    if end > len(data):
        raise truncated("a tag directory is incomplete")
    tags: Tags = {}
    for position in range(start + 2, end, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, position)
        if tag == _DNG:
            tags[tag] = ()
        if tag not in _WANTED or kind not in _SIZES or not 0 < count <= _MAX_COUNT:
            continue
        offset = position + 8
        if count * _SIZES[kind] > 4:
            (offset,) = struct.unpack_from(order + "I", data, offset)
        if offset + count * _SIZES[kind] > len(data):
            raise truncated("a value of a tag directory is missing")
        tags.setdefault(tag, struct.unpack_from(f"{order}{count}{_CODES[kind]}", data, offset))
    following = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return tags, following
