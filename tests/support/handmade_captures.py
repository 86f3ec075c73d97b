"""Raw captures made by hand, and a stand-in for a trained network: bilinear interpolation in ONNX."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from PIL import Image

from tests.support import handmade_networks
from tests.support.handmade_networks import Port

TILE = 32
HALO = 2
PATTERNS = ("RGGB", "GRBG", "GBRG", "BGGR")
_WEIGHTS = {"R": np.outer([1, 2, 1], [1, 2, 1]) / 4, "G": np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4}
_WEIGHTS["B"] = _WEIGHTS["R"]


def bilinear(tile: int = TILE, *, brittle: bool = False, trips: int = 0) -> bytes:
    """Packed tiles in, the plain bilinear picture out, after ``trips`` idle products a batch.

    ``std`` is 0.002 + |image| / 100, ``noise`` a tenth of it. A pixel depends on samples at most two away,
    so the halo is 2. With ``brittle``, tiles with a sample above 1.5 are answered with NaN.
    """
    kernel = np.zeros((12, 4, 3, 3), dtype=np.float32)
    for channel, colour in enumerate("RGB"):
        for row in range(2):
            for column in range(2):
                for down in (-1, 0, 1):
                    for right in (-1, 0, 1):
                        y, x = row + down, column + right
                        plane = 2 * (y % 2) + x % 2
                        if "RGGB"[plane] == colour:
                            weight = _WEIGHTS[colour][down + 1, right + 1]
                            kernel[4 * channel + 2 * row + column, plane, y // 2 + 1, x // 2 + 1] = weight
    half = tile // 2
    mosaic = Port("mosaic", "FP32", (4, half, half))
    outputs = [Port(name, "FP32", (3, tile, tile)) for name in ("image", "std", "noise")]
    weights = {
        "kernel": kernel,
        "hundredth": np.float32(0.01),
        "floor": np.float32(0.002),
        "tenth": np.float32(0.1),
        "limit": np.float32(1.5),
    }
    busy, constants = handmade_networks.busy_nodes(trips, "mosaic") if trips else ([], {})
    nodes = [
        *busy,
        helper.make_node("Conv", ["answer" if busy else "mosaic", "kernel"], ["deep"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["deep"], ["plain"], blocksize=2, mode="CRD"),
        helper.make_node("Abs", ["plain"], ["size"]),
        helper.make_node("Mul", ["size", "hundredth"], ["share"]),
        helper.make_node("Add", ["share", "floor"], ["std"]),
        helper.make_node("Mul", ["std", "tenth"], ["noise"]),
    ]
    if brittle:
        nodes += [
            helper.make_node("ReduceMax", ["mosaic"], ["top"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Sub", ["limit", "top"], ["room"]),
            helper.make_node("Sqrt", ["room"], ["root"]),  # NaN above the limit
            helper.make_node("Sub", ["root", "root"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["image"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["image"]))
        del weights["limit"]
    return handmade_networks.network(nodes, [mosaic], outputs, {**weights, **constants})


def facts(tile: int = TILE) -> dict[str, Any]:
    """What the manifest of a stand-in says."""
    return {
        "task": "raw-restoration",
        "family": "bilinear",
        "source": {"system": "test", "variant": "bilinear", "tile": tile, "halo": HALO},
    }


def add_restorer(root: Path, name: str, tile: int = TILE, **options: Any) -> Path:
    """A restoration network, so that ``develop.<name>`` exists beside it."""
    half = tile // 2
    inputs = [Port("mosaic", "FP32", (4, half, half))]
    outputs = [Port(each, "FP32", (3, tile, tile)) for each in ("image", "std", "noise")]
    return handmade_networks.add_model(
        root, name, bilinear(tile, **options), inputs, outputs, facts=facts(tile)
    )


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random colour picture [height, width, 3] with values from 0 to 1."""
    small = np.random.default_rng(seed).integers(20, 230, (5, 6, 3), dtype=np.uint8)
    scaled = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(scaled, dtype=np.float64) / 255


def mosaicked(image: np.ndarray, cfa: str = "RGGB") -> np.ndarray:
    """The samples [height, width] that a sensor of phase ``cfa`` takes of a picture."""
    mosaic = np.empty(image.shape[:2], dtype=image.dtype)
    for index, colour in enumerate(cfa):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = image[row::2, column::2, "RGB".index(colour)]
    return mosaic


def npy(mosaic: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, mosaic, allow_pickle=False)
    return buffer.getvalue()


def image_file(mosaic: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """A grey picture, 16 bits for uint16."""
    buffer = io.BytesIO()
    Image.fromarray(mosaic).save(buffer, kind, **options)
    return buffer.getvalue()


def capture(height: int = 44, width: int = 60, cfa: str = "RGGB", seed: int = 0) -> np.ndarray:
    """A uint16 mosaic of :func:`picture`, black at 0 and white at 65535."""
    return np.rint(mosaicked(picture(height, width, seed), cfa) * 65535).astype(np.uint16)


def dng(
    mosaic: np.ndarray,
    cfa: str = "RGGB",
    *,
    white: int = 16383,
    black: int = 512,
    orientation: int = 1,
    tags: Mapping[int, tuple[int, list[int]] | None] | None = None,
) -> bytes:
    """An uncompressed DNG 1.4 of one camera that nobody makes. ``tags`` replace or remove (None) entries."""
    height, width = mosaic.shape[:2]
    matrix = [9020, -2890, -715, -4535, 12436, 2348, -934, 1919, 7086]
    rational = [value for entry in matrix for value in (entry, 10000)]
    entries: dict[int, tuple[int, list[int]] | None] = {
        254: (4, [0]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16]),
        259: (3, [1]),
        262: (3, [32803]),
        271: (2, [*b"Nonet\0"]),
        272: (2, [*b"Testcam\0"]),
        273: (4, [0]),
        274: (3, [orientation]),
        277: (3, [1]),
        278: (4, [height]),
        279: (4, [mosaic.nbytes]),
        33421: (3, [2, 2]),
        33422: (1, ["RGB".index(colour) for colour in cfa]),
        50706: (1, [1, 4, 0, 0]),
        50707: (1, [1, 1, 0, 0]),
        50708: (2, [*b"Nonet Testcam\0"]),
        50714: (3, [black]),
        50717: (3, [white]),
        50721: (10, rational),
        50728: (5, [1, 2, 1, 1, 10, 16]),
        50778: (3, [21]),
    }
    entries |= tags or {}
    kept = sorted((tag, value) for tag, value in entries.items() if value is not None)
    codes = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 10: "i"}
    behind = 8 + 2 + 12 * len(kept) + 4
    blob, fields = b"", []
    for tag, (kind, values) in kept:
        packed = struct.pack(f"<{len(values)}{codes[kind]}", *values)
        count = len(values) // 2 if kind in (5, 10) else len(values)
        if len(packed) > 4:
            fields.append([tag, kind, count, behind + len(blob)])
            blob += packed + b"\0" * (len(packed) % 2)
        else:
            fields.append([tag, kind, count, struct.unpack("<I", packed.ljust(4, b"\0"))[0]])
    for field in fields:
        if field[0] == 273:
            field[3] = behind + len(blob)
    directory = b"".join(struct.pack("<HHII", *field) for field in fields)
    head = b"II\x2a\0" + struct.pack("<IH", 8, len(kept)) + directory + bytes(4)
    return head + blob + mosaic.astype("<u2").tobytes()


def decoded(file: bytes) -> np.ndarray:
    """The pixels [height, width, 3] of an 8- or 16-bit answer."""
    if file.startswith(b"II\x2a\0"):
        return _tiff16(file)
    with Image.open(io.BytesIO(file)) as image:
        if file.startswith(b"\x89PNG") and file[24] == 16:
            return _png16(file, *image.size)
        return np.asarray(image.convert("RGB"))


def _png16(file: bytes, width: int, height: int) -> np.ndarray:
    """Undoes the row filters None and Up, independently of the writer."""
    import zlib

    position, data = 8, b""
    while position < len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        body = file[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", file, position + 8 + length)[0]
        data += body if kind == b"IDAT" else b""
        position += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + 6 * width)
    assert set(rows[:, 0].tolist()) <= {0, 2}
    out = np.zeros((height, 6 * width), np.uint8)
    for index, row in enumerate(rows):
        above = out[index - 1] if row[0] == 2 and index else np.zeros(6 * width, np.uint8)
        out[index] = row[1:] + above
    return out.view(">u2").reshape(height, width, 3).astype(np.uint16)


def _tiff16(file: bytes) -> np.ndarray:
    (count,) = struct.unpack_from("<H", file, 8)
    tags = {}
    for index in range(count):
        tag, _, _, value = struct.unpack_from("<HHII", file, 10 + 12 * index)
        tags[tag] = value
    pixels = np.frombuffer(file, "<u2", offset=tags[273])
    return pixels.reshape(tags[257], tags[256], 3)
