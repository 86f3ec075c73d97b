"""How much work a raw capture is, told from its first bytes and its length: for predictions of its time."""

from __future__ import annotations

import math
import re
import struct
from typing import Final

from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo

TILE_CORE: Final = "tile_core"
"""Detail of a service's description: pixels of the inner part of a tile along a side."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_NPY: Final = b"\x93NUMPY"
_NPY_ITEM: Final = re.compile(rb"'descr': '[<>|=]?[a-z](\d{1,2})'")
_NPY_HEAD: Final = 128
_SAMPLE_BYTES: Final = 2


def request_cost(request: InferRequest, info: ModelInfo) -> float:
    """Tiles of all captures of a request, in units of the measured sample, which is one tile; at least one
    for each capture.

    Nothing is decoded. PNG and NPY say their size; of anything else, two bytes are taken for a pixel, which
    is exact for bare samples and plain TIFF. The packed samples of a camera file take less, so it is held for
    smaller than it is rather than larger: what could be in time is not refused for a guess.
    """
    core = int(info.details[TILE_CORE])
    return float(sum(max(math.ceil(_pixels(data) / core**2), 1) for data in request.inputs[0].data))


def _pixels(data: bytes) -> int:
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        # More than deflate can hold in so many bytes is a false header, which is refused before any work.
        return min(int(width) * int(height), 1100 * len(data))
    item = _SAMPLE_BYTES
    if data.startswith(_NPY) and (found := _NPY_ITEM.search(data[:_NPY_HEAD])):
        item = max(int(found[1]), 1)
    return len(data) // item
