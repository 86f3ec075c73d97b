"""A picture that lies in a file while it is made, so that what is finished of it outlives the process.

The pixels are a mapped file; how many tiles are finished stands in a second one, which is written after the
pixels are on the disk and replaced whole: it never says more than is there. A picture of another shape, or
made by other rules, is begun anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from nonet.runtime.tensors import Array

__all__ = ["UnfinishedPicture"]

_PIXELS, _COUNT = "pixels", "finished.json"
_SECONDS: Final = 1.0


class UnfinishedPicture:
    """See the module's text. A process that was given up may still work on it for a moment beside the one
    that took over: both come to the same pixels.

    Args:
        folder: where its files lie.
        rules: JSON-able; what the pixels depend on beside the capture.
    """

    def __init__(self, folder: Path, rules: Any) -> None:
        self._pixels_file = folder / _PIXELS
        self._count_file = folder / _COUNT
        self._said = self._read()
        self._facts: dict[str, Any] = {"rules": rules}
        self._rules = rules
        self._array: np.memmap[Any, Any] | None = None
        self._written = time.monotonic()
        self.finished = 0
        """Tiles that are finished, once :meth:`canvas` was called."""

    @property
    def share(self) -> float:
        """The share that an earlier process says it has finished, 0 to 1."""
        return self._said["finished"] / self._said["tiles"] if self._said else 0.0

    def canvas(self, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
        """The pixels, with what was finished before. Raises OSError when the disk is full."""
        self._facts = {"rules": self._rules, "shape": list(shape), "type": np.dtype(kind).str}
        same = all(self._said.get(name) == value for name, value in self._facts.items())
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        with self._pixels_file.open("ab") as file:
            same = same and os.fstat(file.fileno()).st_size == size
            if not same:
                self._count_file.unlink(missing_ok=True)
                file.truncate(0)
            if hasattr(os, "posix_fallocate"):
                # All room is taken now: a page without room would end the process when it is written to.
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        self.finished = int(self._said["finished"]) if same else 0
        self._array = np.memmap(self._pixels_file, kind, "r+", shape=shape)
        return self._array

    def note(self, finished: int, tiles: int) -> None:
        """The first ``finished`` of ``tiles`` tiles are in the picture; written down now and then."""
        self.finished, self._facts["tiles"] = finished, tiles
        if time.monotonic() > self._written + _SECONDS or finished == tiles:
            self.keep()

    def keep(self) -> None:
        """Write down what is finished. On a full disk what was written before stays."""
        if self._array is None or "tiles" not in self._facts:
            return
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            self._array.flush()
            write_whole(self._count_file, {**self._facts, "finished": self.finished})

    def _read(self) -> dict[str, Any]:
        """What the file of finished tiles says; nothing if it is not there, or damaged."""
        try:
            said = json.loads(self._count_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) and {"finished", "tiles"} <= said.keys() else {}


def write_whole(path: Path, value: Any) -> None:
    """Replace a file by ``value`` as JSON: it is there whole, as it was or as it is now, whatever happens and
    whoever else writes it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(json.dumps(value).encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
