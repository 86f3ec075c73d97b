"""Decodes one camera file in a process of its own: stdin to stdout. Run as a script, never imported.

LibRaw parses hundreds of undocumented formats in C++; here a file that crashes it, or makes it ask for
gigabytes, costs one request and not the server. The script imports nothing of Nonet, so it starts quickly.

In: the file. Arguments: pixel limit, longest side, limit of address space in bytes.
Out: one line of JSON; if it has no ``error``, the visible samples follow, little-endian uint16, row by row.
``error`` is one of: unreadable, truncated, damaged, memory, size, sensor (with ``kind``).
"""

import io
import json
import os
import resource
import sys
from typing import Any

FITTED, FEWEST = 1 << 20, 64


def main() -> None:
    pixels, side, memory = (int(value) for value in sys.argv[1:4])
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LibRaw writes what it thinks of a file to stderr
    os.dup2(2, 1)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread would reserve address space
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    data = sys.stdin.buffer.read()
    header, samples = develop(data, pixels, side)
    with os.fdopen(out, "wb") as stream:
        stream.write(json.dumps(header).encode() + b"\n")
        if samples is not None:
            stream.write(memoryview(samples).cast("B"))


def develop(data: bytes, pixels: int, side: int) -> tuple[dict[str, Any], Any]:
    """Header and samples; the sensor and the size are judged before a pixel is unpacked."""
    import rawpy

    try:
        with rawpy.RawPy() as raw:
            raw.open_buffer(io.BytesIO(data))
            sizes = raw.sizes
            if sizes.raw_width * sizes.raw_height > pixels or max(sizes.raw_width, sizes.raw_height) > side:
                return {"error": "size", "width": sizes.raw_width, "height": sizes.raw_height}, None
            return read_bayer(raw)
    except rawpy.LibRawFileUnsupportedError:
        return {"error": "unreadable"}, None
    except (rawpy.LibRawIOError, rawpy.LibRawInputClosedError):
        return {"error": "truncated"}, None
    except (MemoryError, rawpy.LibRawUnsufficientMemoryError, rawpy.LibRawMemPoolOverflowError):
        return {"error": "memory"}, None
    except rawpy.LibRawTooBigError:
        return {"error": "size", "width": 0, "height": 0}, None
    except (rawpy.LibRawError, rawpy.NotSupportedError, ValueError, AttributeError, RuntimeError):
        return {"error": "damaged"}, None


def read_bayer(raw: Any) -> tuple[dict[str, Any], Any]:
    """What there is to know of an opened file with a Bayer sensor."""
    import numpy as np
    import rawpy

    colours = raw.color_desc.decode("ascii", "replace")
    if raw.num_colors == 1:
        return {"error": "sensor", "kind": "monochrome"}, None
    raw.unpack()
    if raw.raw_type != rawpy.RawType.Flat:
        return {"error": "sensor", "kind": "full-colour (Foveon or linear)"}, None
    pattern = raw.raw_pattern
    if pattern is None or pattern.shape != (2, 2):
        kind = "X-Trans" if pattern is not None and pattern.shape == (6, 6) else "not Bayer"
        return {"error": "sensor", "kind": kind}, None
    sizes = raw.sizes
    top, left = sizes.top_margin, sizes.left_margin
    indices = [raw.raw_color(top + row, left + column) for row in (0, 1) for column in (0, 1)]
    letters = "".join(colours[index] if index < len(colours) else "?" for index in indices)
    if raw.num_colors != 3 or letters not in ("RGGB", "GRBG", "GBRG", "BGGR"):
        return {"error": "sensor", "kind": f"not Bayer ({letters[:4]})"}, None
    black = raw.black_level_per_channel
    visible = np.array(raw.raw_image_visible, dtype="<u2", order="C")  # a copy: LibRaw frees its own
    white = raw.white_level
    header = {
        "width": visible.shape[1],
        "height": visible.shape[0],
        "cfa": letters,
        "black": [float(black[index]) for index in indices],
        "white": float(white) if white else 65535.0,
        "flip": int(sizes.flip),
        "gains": numbers(raw.camera_whitebalance),
        "daylight": numbers(raw.daylight_whitebalance),
        "matrix": [numbers(row) for row in np.asarray(raw.rgb_xyz_matrix)[:3]],
    }
    if not np.any(raw.rgb_xyz_matrix):
        header["srgb"] = built_in_colours(raw)
    return header, visible


def built_in_colours(raw: Any) -> list[list[float]] | None:
    """Camera RGB to linear sRGB where LibRaw has a matrix from the file or in its code, and none by name.

    That one cannot be asked for, so it is fitted to what LibRaw makes of the capture with and without it: the
    relation is exactly linear. None if there is none, or too few colours to tell.
    """
    import numpy as np
    import rawpy

    how = {
        "half_size": True,
        "gamma": (1, 1),
        "no_auto_bright": True,
        "user_wb": [1, 1, 1, 1],
        "output_bps": 16,
    }
    plain, rendered = (
        raw.postprocess(output_color=space, **how).reshape(-1, 3)[:FITTED].astype(np.float64)
        for space in (rawpy.ColorSpace.raw, rawpy.ColorSpace.sRGB)
    )
    usable = (plain.max(axis=1) < 60_000) & (rendered.max(axis=1) < 60_000) & (rendered.min(axis=1) > 50)
    if usable.sum() < FEWEST or np.linalg.cond(plain[usable]) > 1000:
        return None
    matrix, _, rank, _ = np.linalg.lstsq(plain[usable], rendered[usable], rcond=None)
    off = np.abs(plain[usable] @ matrix - rendered[usable]).max()
    if rank < 3 or off > 16 or np.abs(matrix - np.eye(3)).max() < 0.01:
        return None
    return [numbers(row) for row in matrix.T]


def numbers(values: Any) -> list[float]:
    """Finite floats; 0 where there is none."""
    return [float(value) if abs(float(value)) < 1e9 else 0.0 for value in values]


if __name__ == "__main__":
    main()
