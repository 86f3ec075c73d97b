"""POSIX shared memory objects of other processes, opened by their names with the checks that keep callers
from other files.

They are read and written by copying, never through a mapping: an object that another process shortens would
end this one at the next access of a mapping (SIGBUS).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from nonet.runtime.errors import InsufficientStorage, InvalidArgument, PermissionDenied, ServingError

FOLDER = Path("/dev/shm")
"""Where Linux has them, as files."""

_NAME = re.compile(r"/*(?!\.{1,2}$)([^/\0]{1,255})")
_SEMAPHORE = "sem."
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not be waited for


class MemoryObject:
    """An open object; :meth:`close` it.

    Args:
        key: name of the object, as ``shm_open`` takes it; slashes before it count for nothing.
        owners: ids of the users whose objects may be opened.

    Raises:
        InvalidArgument: the key is no name of an object, or there is no such object.
        PermissionDenied: it is not a plain shared memory object, it is another user's, or this process may
            not read and write it.
    """

    def __init__(self, key: str, owners: Collection[int]) -> None:
        found = _NAME.fullmatch(key)
        if found is None:
            raise InvalidArgument(
                f"key {key[:80]!r} is no name of a POSIX shared memory object: one name, without folders",
                param="key",
            )
        name = found[1]
        if name.startswith(_SEMAPHORE):
            raise _refused(key, "it is a semaphore")
        try:
            folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._descriptor = os.open(name.encode(), _FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _unopened(key, error) from None
        facts = os.fstat(self._descriptor)
        why = ""
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            why = "it is not a plain shared memory object"
        elif facts.st_uid not in owners:
            why = "it belongs to another user"
        if why:
            self.close()
            raise _refused(key, why)
        self.identity = (facts.st_dev, facts.st_ino)
        """Equal for two that are the same object, whatever their names."""

    def close(self) -> None:
        """Nothing can be done with it any more. To be called once."""
        os.close(self._descriptor)

    @property
    def size(self) -> int:
        """Bytes that it has now."""
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> memoryview | None:
        """A copy of ``size`` bytes from ``offset``; None if the object has not so many."""
        if offset + size > self.size:
            return None
        content = memoryview(bytearray(size))
        done = 0
        while done < size:
            got = os.preadv(self._descriptor, [content[done:]], offset + done)
            if got == 0:
                return None
            done += got
        return content

    def write(self, offset: int, data: bytes) -> bool:
        """Write ``data`` at ``offset``; False if the object has no room for it.

        Raises InsufficientStorage if the memory of all objects is used up, PermissionDenied for one that has
        been sealed.
        """
        if offset + len(data) > self.size:
            return False
        left = memoryview(data)
        while left:
            try:
                done = os.pwrite(self._descriptor, left, offset)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT):
                    raise InsufficientStorage("no shared memory is left for the output") from None
                raise PermissionDenied("the shared memory object can no longer be written") from None
            offset += done
            left = left[done:]
        return True


def _refused(key: str, why: str) -> PermissionDenied:
    return PermissionDenied(f"shared memory object {key[:80]!r} cannot be registered: {why}", param="key")


def _unopened(key: str, error: OSError) -> ServingError:
    if error.errno in (errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL):
        return InvalidArgument(f"there is no shared memory object {key[:80]!r} on this machine", param="key")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return InsufficientStorage("too many files are open for another shared memory region")
    return _refused(key, "it is not a plain shared memory object that this server may read and write")
