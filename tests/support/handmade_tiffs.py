"""TIFF pages written by hand in every way that the format has of storing samples."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 8: "h", 10: "i", 11: "f", 12: "d"}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2, 10: 8, 11: 4, 12: 8}
Tag = tuple[int, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Storage:
    """How samples are stored.

    Args:
        order: ``<`` or ``>``.
        planar: one sample of all pixels after the other.
        reversed_bits: FillOrder 2.
        compression: 1, 5 (only as :func:`lzw` writes it), 8, 32946 or 32773.
        predictor: 1 or 2.
        rows: of a strip.
        tile: width and height of tiles, instead of strips.
    """

    order: str = "<"
    planar: bool = False
    reversed_bits: bool = False
    compression: int = 1
    predictor: int = 1
    rows: int = 1 << 20
    tile: tuple[int, int] | None = None


def page(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    storage: Storage = Storage(),
    tags: Mapping[int, Tag | None] | None = None,
) -> bytes:
    """A file of one page of samples [height, width, n]; floats and signed integers are stored as such.

    ``tags`` replace or remove (None) entries.
    """
    height, width, count = samples.shape
    planes = [samples[:, :, [index]] for index in range(count)] if storage.planar else [samples]
    pieces = [_compressed(piece, bits, storage) for plane in planes for piece in _cut(plane, storage)]
    kind = {"f": 3, "i": 2}.get(samples.dtype.kind, 1)
    entries: dict[int, Tag | None] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * count),
        259: (3, [storage.compression]),
        262: (3, [photometric]),
        266: (3, [2 if storage.reversed_bits else 1]),
        277: (3, [count]),
        284: (3, [2 if storage.planar else 1]),
        317: (3, [storage.predictor]),
        339: (3, [kind] * count),
    }
    if storage.tile:
        entries |= {322: (4, [storage.tile[0]]), 323: (4, [storage.tile[1]])}
        entries |= {324: (4, [0] * len(pieces)), 325: (4, [len(piece) for piece in pieces])}
    else:
        entries |= {278: (4, [min(storage.rows, height)]), 273: (4, [0] * len(pieces))}
        entries[279] = (4, [len(piece) for piece in pieces])
    return assembled(entries | dict(tags or {}), pieces, storage.order)


def assembled(entries: Mapping[int, Tag | None], pieces: Sequence[bytes], order: str = "<") -> bytes:
    """A file of one directory; the offsets in tag 273 or 324 are filled in."""
    kept = {tag: value for tag, value in sorted(entries.items()) if value is not None}
    start = 8 + 2 + 12 * len(kept) + 4
    sizes = {
        tag: len(values) * SIZES[kind] // (2 if kind in (5, 10) else 1)
        for tag, (kind, values) in kept.items()
    }
    extra = sum(size + size % 2 for size in sizes.values() if size > 4)
    at, offsets = start + extra, []
    for piece in pieces:
        offsets.append(at)
        at += len(piece)
    directory, blob = b"", b""
    for tag, (kind, values) in kept.items():
        numbers = offsets if tag in (273, 324) else values
        packed = struct.pack(f"{order}{len(numbers)}{CODES[kind]}", *numbers)
        number = len(numbers) // 2 if kind in (5, 10) else len(numbers)
        directory += struct.pack(order + "HHI", tag, kind, number)
        if len(packed) > 4:
            directory += struct.pack(order + "I", start + len(blob))
            blob += packed + b"\0" * (len(packed) % 2)
        else:
            directory += packed.ljust(4, b"\0")
    head = (b"II\x2a\0" if order == "<" else b"MM\0\x2a") + struct.pack(order + "IH", 8, len(kept))
    return head + directory + bytes(4) + blob + b"".join(pieces)


def _cut(plane: np.ndarray, storage: Storage) -> list[np.ndarray]:
    height, width, _ = plane.shape
    if storage.tile is None:
        return [plane[top : top + storage.rows] for top in range(0, height, storage.rows)]
    across, down = storage.tile
    padded = np.pad(plane, [(0, -height % down), (0, -width % across), (0, 0)], mode="edge")
    return [
        padded[top : top + down, left : left + across]
        for top in range(0, padded.shape[0], down)
        for left in range(0, padded.shape[1], across)
    ]


def _compressed(piece: np.ndarray, bits: int, storage: Storage) -> bytes:
    if storage.predictor == 2:
        before = np.concatenate([np.zeros_like(piece[:, :1]), piece[:, :-1]], axis=1)
        piece = piece - before
    stored = COMPRESSORS[storage.compression](packed_bits(piece, bits, storage.order))
    if storage.reversed_bits:
        stored = bytes(int(f"{value:08b}"[::-1], 2) for value in stored)
    return stored


def packed_bits(piece: np.ndarray, bits: int, order: str) -> bytes:
    """Rows of samples, each row filled up to whole bytes."""
    if bits % 8 == 0 and bits != 24:
        return piece.astype(piece.dtype.newbyteorder(order)).tobytes()
    rows = piece.reshape(len(piece), -1).astype(np.uint32)
    ones = (rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(piece), -1).astype(np.uint8), axis=1).tobytes()


def lzw(data: bytes) -> bytes:
    """LZW without any compression: a clear code before the table could need wider codes."""
    codes = []
    for index, value in enumerate(data):
        if index % 200 == 0:
            codes.append(256)
        codes.append(value)
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def pack_bits(data: bytes) -> bytes:
    """Literal runs and runs of equal bytes."""
    out = b""
    while data:
        run = 1
        while run < min(128, len(data)) and data[run] == data[0]:
            run += 1
        if run > 2:
            out, data = out + bytes([257 - run, data[0]]), data[run:]
        else:
            out, data = out + bytes([min(8, len(data)) - 1]) + data[:8], data[8:]
    return out


COMPRESSORS: Mapping[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: lzw,
    8: zlib.compress,
    32773: pack_bits,
    32946: zlib.compress,
}
