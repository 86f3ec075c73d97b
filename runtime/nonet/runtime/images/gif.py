"""GIF: the blocks are walked to the end, so that a cut file and the number of frames are known."""

from __future__ import annotations

import struct
from typing import Final

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, truncated
from nonet.runtime.images.sniffing import refuse_archive

_NOTHING, _IMAGE, _EXTENSION, _TRAILER = 0x00, 0x2C, 0x21, 0x3B
_GRAPHIC_CONTROL: Final = 0xF9


def inspect_gif(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Walk every block up to the trailer; the payload holds the first frame only.

    A file that ends behind a whole frame is whole, though its trailer is missing, and the empty blocks that
    some writers leave between two are passed over, as browsers do. A frame that reaches beyond the screen
    makes the screen larger. Raises Refusal for a file that is cut off, damaged, over a limit, or an archive
    too.
    """
    if len(data) < 13:
        raise truncated("a GIF without its screen descriptor")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    limits.check_size(width, height)
    position = 13 + _table_size(flags)
    screen_end = position
    control: bytes = b""
    first: bytes = b""
    box = (0, 0, width, height)
    frames = 0
    while True:
        if position >= len(data) and frames:
            break
        if position >= len(data):
            raise truncated("the GIF ends before its first frame")
        kind, start = data[position], position
        if kind == _TRAILER:
            break
        if kind == _NOTHING:
            position += 1
            continue
        if kind == _EXTENSION:
            label = data[position + 1 : position + 2]
            position = _skip_sub_blocks(data, position + 2)
            if label == bytes([_GRAPHIC_CONTROL]) and not frames:
                control = data[start:position]
        elif kind == _IMAGE:
            if position + 11 > len(data):
                raise truncated("a frame of the GIF is incomplete")
            left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, position + 1)
            limits.check_size(max(width, left + columns), max(height, top + rows))
            if not columns or not rows:
                raise corrupt("a GIF frame without pixels")
            position = _skip_sub_blocks(data, position + 11 + _table_size(flags))
            frames += 1
            limits.check_frames(frames)
            if not first:
                first = data[start:position]
                box = (left, top, left + columns, top + rows)
        else:
            raise corrupt("an unknown block in a GIF")
    if not frames:
        raise truncated("a GIF without pixel data")
    refuse_archive(data, position + 1)
    return ImageHeader(
        format="GIF",
        width=max(width, box[2]),
        height=max(height, box[3]),
        payload=data[:screen_end] + control + first + bytes([_TRAILER]),
        frames=frames,
        frame_box=box,
    )


def _table_size(flags: int) -> int:
    """Bytes of the colour table that ``flags`` announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, position: int) -> int:
    """The position behind a chain of sub-blocks; each starts with its length, 0 ends the chain."""
    while True:
        if position >= len(data):
            raise truncated("a block of the GIF is incomplete")
        length = data[position]
        position += 1 + length
        if length == 0:
            return position
