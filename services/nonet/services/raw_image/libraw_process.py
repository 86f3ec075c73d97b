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

CHART_LEVELS = (0.3, 0.2)
"""Of a test chart: grey, and what is added to one colour; shares of black to white."""


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
    white = float(raw.white_level or 65535)
    linear = raw.camera_white_level_per_channel or [0] * 4
    header = {
        "width": visible.shape[1],
        "height": visible.shape[0],
        "cfa": letters,
        "black": [float(black[index]) for index in indices],
        # Where a channel ends earlier than the others its highlights would be tinted.
        "white": [float(linear[index]) if white / 2 < linear[index] < white else white for index in indices],
        "flip": int(sizes.flip),
        "gains": numbers(raw.camera_whitebalance),
        "daylight": numbers(raw.daylight_whitebalance),
        "matrix": [numbers(row) for row in np.asarray(raw.rgb_xyz_matrix)[:3]],
    }
    if not np.any(raw.rgb_xyz_matrix):
        header["srgb"] = built_in_colours(raw, indices)
    return header, visible


def built_in_colours(raw: Any, indices: list[int]) -> list[list[float]] | None:
    """Camera RGB to linear sRGB where LibRaw develops with a matrix that it has no name for, else None.

    It cannot be asked for, so LibRaw develops a test chart in place of the capture: grey, and grey with more
    of one colour, with the matrix and without it. What comes out does not depend on what was photographed.
    """
    import numpy as np
    import rawpy

    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    chart = raw.raw_image
    black = raw.black_level_per_channel
    height, width = raw.raw_image_visible.shape
    if min(height, width) < 64:
        return None
    bands = np.minimum(np.arange(chart.shape[1]) // (chart.shape[1] // 4), 3)
    for place, index in enumerate(indices):
        row, column = (top + place // 2) % 2, (left + place % 2) % 2
        level = np.where(bands == 1 + index % 3, sum(CHART_LEVELS), CHART_LEVELS[0])
        if index == 3:  # the second green
            level = np.where(bands == 2, sum(CHART_LEVELS), CHART_LEVELS[0])
        values = black[index] + level * (raw.white_level - black[index])
        chart[row::2, column::2] = values[column::2].astype(chart.dtype)
    how = {"half_size": True, "gamma": (1, 1), "no_auto_bright": True, "user_wb": [1, 1, 1, 1]}
    how |= {"output_bps": 16, "user_flip": 0, "adjust_maximum_thr": 0.0}
    plain, rendered = (
        bands_of(raw.postprocess(output_color=space, **how))
        for space in (rawpy.ColorSpace.raw, rawpy.ColorSpace.sRGB)
    )
    matrix, _, rank, _ = np.linalg.lstsq(plain, rendered, rcond=None)
    if rank < 3 or np.abs(plain @ matrix - rendered).max() > 64 or np.abs(matrix - np.eye(3)).max() < 0.01:
        return None
    return [numbers(row) for row in matrix.T]


def bands_of(picture: Any) -> Any:
    """The mean colours [4, 3] of the four bands of a developed chart, away from their edges."""
    import numpy as np

    middle = picture[picture.shape[0] // 4 : -picture.shape[0] // 4]
    quarter = middle.shape[1] // 4
    return np.stack(
        [
            middle[:, band * quarter + quarter // 4 : (band + 1) * quarter - quarter // 4].mean(axis=(0, 1))
            for band in range(4)
        ]
    )


def numbers(values: Any) -> list[float]:
    """Finite floats; 0 where there is none."""
    return [float(value) if abs(float(value)) < 1e9 else 0.0 for value in values]


if __name__ == "__main__":
    main()
