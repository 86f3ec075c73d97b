"""Maps file system errors (disk full, read only) to the errors that callers see."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from nonet.runtime.errors import InsufficientStorage, Unavailable

__all__ = ["storage_errors"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Failures to write inside the block become InsufficientStorage, or Unavailable for what may pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InsufficientStorage("the disk for uploads and jobs is full or read-only") from error
        raise Unavailable("the disk for uploads and jobs cannot be used now") from error
