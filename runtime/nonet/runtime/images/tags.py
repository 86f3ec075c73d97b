"""The tag directory of TIFF, which EXIF uses too: a bounded reader of the first one only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from nonet.runtime.images.limits import Refusal, truncated

ORIENTATION: Final = 0x0112
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_CODES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_FRACTIONS: Final = {5: "I", 10: "i"}
_ENTRY: Final = 12


def read_first_directory(
    data: bytes, wanted: Mapping[int, int]
) -> tuple[dict[int, tuple[float, ...]], int] | None:
    """Tags of the first directory as numbers, and the offset of the next (0 if there is none).

    ``data`` starts with the byte-order mark; ``wanted`` maps tag numbers to the largest count that is read.
    Tags that are absent, of another type or too long are left out. Returns None if the header is not TIFF's.
    Raises Refusal (truncated) if the directory or a wanted value lies beyond the end.
    """
    order = {b"II\x2a\x00": "<", b"MM\x00\x2a": ">"}.get(data[:4])
    if order is None:
        return None
    if len(data) < 8:
        raise truncated("its tag directory is missing")
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        raise truncated("its tag directory is missing")
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + entries * _ENTRY
    if end > len(data):
        raise truncated("its tag directory is incomplete")
    found: dict[int, tuple[float, ...]] = {}
    for position in range(start + 2, end, _ENTRY):
        tag, kind, count = struct.unpack_from(order + "HHI", data, position)
        if tag not in wanted or kind not in _SIZES or not 0 < count <= wanted[tag]:
            continue
        length = count * _SIZES[kind]
        offset = position + 8
        if length > 4:
            (offset,) = struct.unpack_from(order + "I", data, offset)
        if offset + length > len(data):
            raise truncated("a value of its tag directory is missing")
        found.setdefault(tag, _values(data, order, kind, count, offset))
    following = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return found, following


def _values(data: bytes, order: str, kind: int, count: int, offset: int) -> tuple[float, ...]:
    """The values of a tag; a fraction by zero is 0."""
    if kind not in _FRACTIONS:
        return struct.unpack_from(f"{order}{count}{_CODES[kind]}", data, offset)
    parts = struct.unpack_from(f"{order}{2 * count}{_FRACTIONS[kind]}", data, offset)
    return tuple(
        upper / lower if lower else 0.0 for upper, lower in zip(parts[::2], parts[1::2], strict=True)
    )


def exif_orientation(block: bytes) -> int:
    """Orientation 1 to 8 of an EXIF block; 1 if it says nothing, or nothing that makes sense."""
    try:
        directory = read_first_directory(block.removeprefix(b"Exif\x00\x00"), {ORIENTATION: 1})
    except Refusal:
        return 1
    return orientation_of(directory[0]) if directory else 1


def orientation_of(tags: Mapping[int, tuple[float, ...]]) -> int:
    """The orientation tag of a directory; 1 where it is missing or outside 1 to 8."""
    value = int(tags.get(ORIENTATION, (1,))[0])
    return value if 1 <= value <= 8 else 1
