"""The samples of a TIFF page, out of its strips or tiles.

Every way to lay samples out comes down to rows of bytes: pieces are decompressed to bytes, and depth, byte
order, planes and predictor are undone in NumPy by one set of rules. LZW and PackBits are decompressed by
libtiff, given as a page of bare bytes, so that it applies no rule of its own; Deflate by zlib. Both notice
data that is missing. A few million samples are worked on at a time, so a page of many bits takes no more
memory than its bytes and what becomes of them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from nonet.runtime.images.limits import corrupt, truncated, unsupported
from nonet.runtime.images.tiff import FLOAT, LZW, PACK_BITS, SIGNED, UNCOMPRESSED
from nonet.runtime.images.tiff_layout import TiffLayout
from nonet.runtime.tensors import Array

_AT_A_TIME: Final = 1 << 21
_BYTES_TOGETHER: Final = 1 << 24
_REVERSED: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class Rows:
    """Samples of some rows of one piece, and where in the page they belong."""

    def __init__(self, top: int, left: int, plane: int, samples: Array) -> None:
        self.top = top
        self.left = left
        self.plane = plane
        """The first sample of a pixel that these are."""
        self.samples = samples
        """[rows, columns, samples], unsigned, signed or floating-point as the page says."""


def sample_rows(data: bytes, layout: TiffLayout) -> Iterator[Rows]:
    """The samples of a page, some rows of a piece at a time; they cover it once.

    Raises Refusal for pieces that are cut off or damaged.
    """
    together = 1 if layout.planar else layout.samples
    for place, packed in _pieces(data, layout):
        left, top, plane = place
        columns = min(layout.piece[0], layout.width - left)
        rows = min(len(packed), layout.height - top)
        step = max(1, _AT_A_TIME // (layout.piece[0] * together))
        for first in range(0, rows, step):
            part = packed[first : min(first + step, rows)]
            samples = _unpacked(part, layout, layout.piece[0] * together)
            samples = samples.reshape(len(part), layout.piece[0], together)
            if layout.predictor == 2:
                samples = np.cumsum(samples, axis=1, dtype=samples.dtype)
            yield Rows(top + first, left, plane, samples[:, :columns])


def block_rows(data: bytes, layout: TiffLayout) -> Iterator[Rows]:
    """As :func:`sample_rows`, for a YCbCr page whose colours are subsampled: [rows, columns, 3], repeated."""
    across, down = layout.subsampling
    for (left, top, _), packed in _pieces(data, layout):
        columns, rows = min(layout.piece[0], layout.width - left), len(packed) * down
        blocks = packed.reshape(len(packed), -1, across * down + 2)
        light = blocks[:, :, :-2].reshape(len(packed), -1, down, across).swapaxes(1, 2).reshape(rows, -1)
        samples = np.empty((*light.shape, 3), dtype=np.uint8)
        samples[:, :, 0] = light
        for channel in (1, 2):
            samples[:, :, channel] = blocks[:, :, channel - 3].repeat(down, axis=0).repeat(across, axis=1)
        yield Rows(top, left, 0, samples[: layout.height - top, :columns])


def _pieces(data: bytes, layout: TiffLayout) -> Iterator[tuple[tuple[int, int, int], npt.NDArray[np.uint8]]]:
    """Left, top and plane of each piece, and its bytes, [rows, bytes of a row] without compression."""
    across = -(-layout.width // layout.piece[0])
    down = -(-layout.height // layout.piece[1])
    rows = [-(-layout.piece_rows(row) // layout.subsampling[1]) for row in range(down)]
    places = [
        (column * layout.piece[0], row * layout.piece[1], plane)
        for plane in range(layout.samples if layout.planar else 1)
        for row in range(down)
        for column in range(across)
    ]
    heights = [rows[top // layout.piece[1]] for _, top, _ in places]
    start = 0
    while start < len(places):
        most = max(1, _BYTES_TOGETHER // (layout.row_bytes * heights[start]))
        end = start + 1
        while end < len(places) and end - start < most and heights[end] == heights[start]:
            end += 1
        stored = [
            data[offset : offset + length]
            for offset, length in zip(layout.offsets[start:end], layout.lengths[start:end], strict=True)
        ]
        if layout.reversed_bits:
            stored = [piece.translate(_REVERSED) for piece in stored]
        yield from zip(places[start:end], _decompressed(stored, layout, heights[start]), strict=True)
        start = end


def _decompressed(stored: list[bytes], layout: TiffLayout, rows: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes [rows, bytes of a row] of some pieces of equal size."""
    size = rows * layout.row_bytes
    if layout.compression in (LZW, PACK_BITS):
        pixels = _by_libtiff(stored, layout.compression, layout.row_bytes, rows)
        yield from pixels.reshape(len(stored), rows, layout.row_bytes)
        return
    for piece in stored:
        found = piece if layout.compression == UNCOMPRESSED else _inflated(piece, size)
        if len(found) < size:
            raise truncated("pixels of the TIFF are missing")
        yield np.frombuffer(found, dtype=np.uint8, count=size).reshape(rows, layout.row_bytes)


def _inflated(piece: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(piece, size)
    except zlib.error as error:
        raise corrupt("its pixel data cannot be decompressed") from error


def _by_libtiff(stored: list[bytes], compression: int, width: int, rows: int) -> npt.NDArray[np.uint8]:
    """The pieces as strips of one grey page of 8 bits, whose pixels are the bytes."""
    entries = 9
    behind = 8 + 2 + 12 * entries + 4
    lengths = [len(piece) for piece in stored]
    starts = np.cumsum([behind + 8 * len(stored), *lengths[:-1]]).tolist()
    many = len(stored) > 1
    directory = [
        (256, 4, 1, width),
        (257, 4, 1, rows * len(stored)),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, len(stored), behind if many else starts[0]),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, len(stored), behind + 4 * len(stored) if many else lengths[0]),
    ]
    head = b"II\x2a\x00" + struct.pack("<IH", 8, entries)
    head += b"".join(struct.pack("<HHII", *entry) for entry in directory) + bytes(4)
    tables = struct.pack(f"<{2 * len(stored)}I", *starts, *lengths)
    # Not by Image.open: it judges the number of pixels, which are bytes here and were judged before.
    with TiffImagePlugin.TiffImageFile(io.BytesIO(b"".join((head, tables, *stored)))) as page:
        page.load()
        return np.asarray(page)


def _unpacked(rows: npt.NDArray[np.uint8], layout: TiffLayout, count: int) -> Array:
    """The samples [rows, count] of rows of bytes."""
    bits = layout.bits
    if bits in (8, 16, 32, 64):
        letter = {SIGNED: "i", FLOAT: "f"}.get(layout.sample_format, "u")
        if letter == "f" and bits == 8:
            raise unsupported("a TIFF of floating-point numbers of 8 bits is not decoded")
        kind = np.dtype(f"{layout.order}{letter}{bits // 8}")
        samples: Array = np.ascontiguousarray(rows).view(kind)[:, :count]
        return samples.astype(kind.newbyteorder("="), copy=False)
    ones = np.unpackbits(rows, axis=1, count=count * bits).reshape(len(rows), count, bits)
    unpacked = np.zeros((len(rows), count), dtype=np.uint8 if bits < 8 else np.uint16)
    for bit in range(bits):
        unpacked <<= 1
        unpacked |= ones[:, :, bit]
    return unpacked
