"""A capture that is to be developed later: checked, copied to its place and told apart from all others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import Parameter
from nonet.services.raw_image.development import white_balance_of
from nonet.services.raw_image.limits import PARAM, RawLimits
from nonet.services.raw_image.options import read_options
from nonet.services.raw_image.reading import check_capture

__all__ = ["mapped", "take_upload"]

_STEP: Final = 1 << 20


def take_upload(
    source: Path,
    target: Path,
    parameters: Mapping[str, Parameter],
    *,
    offset: int = 0,
    length: int | None = None,
    limits: RawLimits | None = None,
) -> str:
    """Copy the capture in ``source`` to the new file ``target``, and check it with its parameters. Blocks.

    What is wrong with it is refused in the words of the service, as far as it shows without decoding pixels.

    Args:
        source: the upload.
        target: file for the capture.
        parameters: of the service; see :mod:`.options`.
        offset, length: part of ``source`` that is the capture, in bytes; by default all of it.
        limits: bounds for one capture.

    Returns a sha256 (hex) over the capture and what its parameters mean. Raises InvalidArgument,
    PayloadTooLarge, UndecodableMedia, and OSError when the disk is full.
    """
    options = read_options(parameters)
    seen = hashlib.sha256()
    with source.open("rb") as file, target.open("xb") as copy:
        file.seek(offset)
        left = source.stat().st_size - offset if length is None else length
        while left > 0 and (piece := file.read(min(_STEP, left))):
            seen.update(piece)
            copy.write(piece)
            left -= len(piece)
    capture = check_capture(mapped(target), options, limits or RawLimits())
    if capture is not None:
        white_balance_of(capture, options)
    facts = [seen.hexdigest(), dataclasses.asdict(options)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def mapped(path: Path) -> bytes:
    """The content of a file that is there for as long as it is looked at, without reading it into memory.

    Raises InvalidArgument for an empty file, which cannot be mapped.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise InvalidArgument("field 'raw' is empty; send a capture", param=PARAM, code="RAW_EMPTY")
        # Not closed by hand: arrays are made over it. Readers slice and search, so it is as good as bytes.
        return cast("bytes", mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
