"""One capture from a file to a picture in a file, however long it takes.

    read -> tiles through the network, wave by wave, into a picture on the disk -> encode

It says how far it is and can be stopped between two waves; the next call with the same folder goes on after
the last tile that was written down. The picture is, byte for byte, what the service answers a request.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from nonet.runtime.errors import ServingError
from nonet.runtime.servable import Servable
from nonet.services.raw_image.derive import tile_form
from nonet.services.raw_image.development import RULES, Development
from nonet.services.raw_image.limits import RawLimits
from nonet.services.raw_image.options import DevelopOptions
from nonet.services.raw_image.partial_picture import UnfinishedPicture
from nonet.services.raw_image.reading import read_capture
from nonet.services.raw_image.tile_batches import run_tiles
from nonet.services.raw_image.upload import mapped

__all__ = ["develop_file"]

logger = logging.getLogger(__name__)

Report = Callable[[float, str], None]
"""Told the share that is done and what is being done; what it raises ends the work."""

T = TypeVar("T")

_READ: Final = 0.02  # of the whole, about what it takes
_DEVELOPED: Final = 0.96
_WAVE: Final = 2
"""Tiles of one execution. On a CPU more are no faster, take more memory, and more time before work stops."""
_PATIENCE: Final = 30.0
"""Seconds for which a full disk is waited for."""


def develop_file(
    network: Servable,
    source: Path,
    target: Path,
    options: DevelopOptions,
    *,
    folder: Path,
    report: Report,
    limits: RawLimits | None = None,
    threads: int = 1,
    patience: float = _PATIENCE,
) -> dict[str, Any]:
    """Develop the capture in ``source`` and write the picture to ``target``.

    Args:
        network: a restoration network; see :func:`~.derive.derive`.
        source: the capture's file; it must not change meanwhile.
        target: file for the picture, synced to the disk; replaced if it is there.
        options: how to develop.
        folder: keeps what is finished, for the next call after this one was stopped or died: 3 bytes a pixel,
            6 for 16 bits.
        report: called between waves, often.
        limits: bounds for the capture.
        threads: waves that are worked on at the same time.
        patience: seconds for which a full disk is waited for.

    Returns what is known of the picture: ``content_type``, ``bytes``, ``sha256``, ``width``, ``height`` and
    the ``details`` that the service gives. Raises what reading, the network and ``report`` raise, OSError
    when the disk stays full.
    """
    limits = limits or RawLimits()
    picture = UnfinishedPicture(folder, [RULES, network.info.digest])
    before = picture.share
    report(_progress(before) if before else 0.0, "reading the capture")
    capture = read_capture(mapped(source), options, limits, seconds=2 * limits.camera_seconds)
    form = tile_form(network.info)
    phase = "waiting for room on the disk"
    development = _with_room(
        lambda: Development(capture, options, form, canvas=picture.canvas),
        lambda: report(_progress(before), phase),
        patience,
    )
    if picture.finished:
        logger.info("going on after %d of %d tiles", picture.finished, development.tiles)
    try:
        for finished in _waves(network, development, picture.finished, threads):
            picture.note(finished, development.tiles)
            report(_progress(finished / development.tiles), "developing")
    finally:
        picture.keep()
    details = development.details()
    written = _with_room(
        lambda: _write(development, target, lambda: report(_DEVELOPED, "encoding")),
        lambda: report(_DEVELOPED, phase),
        patience,
    )
    return {
        "content_type": details["content_type"],
        **written,
        "width": details["width"],
        "height": details["height"],
        "details": details,
    }


def _progress(share: float) -> float:
    return _READ + (_DEVELOPED - _READ) * share


def _waves(network: Servable, development: Development, first: int, threads: int) -> Iterator[int]:
    """Develop the tiles from number ``first`` on; yields how many are finished, also before the first."""
    size = min(_WAVE, max(1, network.info.max_batch_size))
    tiles = development.tiles

    def run(start: int) -> ServingError | None:
        (outcome,) = run_tiles(network, [(development, range(start, min(start + size, tiles)))])
        return outcome if isinstance(outcome, ServingError) else None

    yield first
    with ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:
        while first < tiles:
            after = min(first + size * threads, tiles)
            for failure in pool.map(run, range(first, after, size)):
                if failure is not None:
                    raise failure
            first = after
            yield first


class _PictureFile:
    """A file that is hashed while it is written, and says now and then that work goes on."""

    def __init__(self, path: Path, alive: Callable[[], None]) -> None:
        self._file = path.open("wb")
        self._alive = alive
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes, /) -> int:
        self._alive()
        self._hash.update(data)
        self._size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> dict[str, Any]:
        """Sync it; its size and hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        self._file.close()


def _write(development: Development, target: Path, alive: Callable[[], None]) -> dict[str, Any]:
    """The picture as a file, there whole or not at all; its size and hash. On failure nothing is left of it,
    so that there is room."""
    alive()
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    file = _PictureFile(fresh, alive)
    try:
        development.write(file)
        written = file.finish()
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        fresh.unlink(missing_ok=True)
        raise
    file.close()
    fresh.replace(target)
    return written


def _with_room(work: Callable[[], T], alive: Callable[[], None], patience: float) -> T:
    """What ``work`` gives; on a full disk it is tried again until ``patience`` is over."""
    until = time.monotonic() + patience
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > until:
                raise
        alive()
        time.sleep(0.5)
