"""Files for uploads that are to become jobs: a bounded number, each gone when its request is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nonet.jobs.files import JobFiles
from nonet.runtime.errors import Unavailable

__all__ = ["IncomingUploads"]

_AT_ONCE = 256
"""Uploads between their first byte and their job; what they take is counted where they arrive."""


class IncomingUploads:
    """Gives uploads their files.

    Args:
        files: where they are.
    """

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._count = 0

    @contextlib.contextmanager
    def receiving(self) -> Iterator[Path]:
        """Path of a new file for an upload, which is removed at the end of the block.

        Raises Unavailable while too many others arrive, InsufficientStorage when the disk is full.
        """
        if self._count >= _AT_ONCE:
            raise Unavailable("too many uploads arrive at the same time; retry later", retry_after=5.0)
        path = self._files.incoming()
        self._count += 1
        try:
            yield path
        finally:
            self._count -= 1
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
