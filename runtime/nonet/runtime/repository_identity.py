"""Which model repository a folder is: a random name in a hidden file of it, so that processes on several
machines can find out whether they mean the same one.

The name is made when it is first needed, in one step, and is never changed. Beside it stands the number that
the file has in its file system: a copy of the folder takes the name along and cannot take the number, so it
is told from the original where the file system's numbers are the same for all who mount it. Where they may
not be (FUSE, SMB, shares of virtual machines) the name alone counts. What cannot be told apart is a copy
below the files: a cloned disk, a restored snapshot.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
from pathlib import Path

__all__ = ["IDENTITY_FILE", "name_repository", "repository_identity"]

logger = logging.getLogger(__name__)

IDENTITY_FILE = ".repository-id"
_CONTENT = re.compile(r"([0-9a-f]{16}) ([0-9]{1,20})\n?", re.ASCII)
_MOUNTS = Path("/proc/self/mountinfo")
_NUMBERED = frozenset(
    ("ceph", "ext2", "ext3", "ext4", "lustre", "nfs", "nfs4", "overlay", "tmpfs", "xfs", "zfs")
)
"""File systems that give a file one number, for as long as it is there and on every machine."""


def repository_identity(root: Path) -> str:
    """The name of the repository in ``root``; "" if it has none yet, or none that can be read.

    Two folders of one name are one repository. Changes nothing.
    """
    try:
        with (root / IDENTITY_FILE).open("rb") as file:
            found = _CONTENT.fullmatch(file.read(64).decode("ascii", "replace"))
            status = os.fstat(file.fileno())
    except OSError:
        return ""
    if found is None:
        _complain(f"{root / IDENTITY_FILE} does not hold the name of a repository; remove it")
        return ""
    name, number = found[1], int(found[2])
    if number in (0, status.st_ino) or not _are_numbered(status.st_dev):
        return name
    return f"{name}-{status.st_ino}"


def name_repository(root: Path) -> str:
    """The name of the repository in ``root``, which gets one if it has none; "" where none can be written.

    Of several processes that do this at once all get the same one.
    """
    path = root / IDENTITY_FILE
    if not path.exists():
        draft = root / f"{IDENTITY_FILE}-{secrets.token_hex(8)}"
        try:
            _write(draft)
            _put(draft, path)
        except OSError as error:
            _complain(f"the repository {root} gets no name: {error.strerror}")
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
    return repository_identity(root)


@functools.cache
def _complain(of: str) -> None:
    """Said once: names are asked for again and again."""
    logger.warning("%s", of)


def _write(draft: Path) -> None:
    with draft.open("xb") as file:
        status = os.fstat(file.fileno())
        number = status.st_ino if _are_numbered(status.st_dev) else 0
        file.write(f"{secrets.token_hex(8)} {number}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)  # others who mount the folder are to read it, whatever the umask


def _put(draft: Path, path: Path) -> None:
    """Give a file its place if that is free."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links: of two at the same moment the last one stands
        if not path.exists():
            draft.replace(path)


def _are_numbered(device: int) -> bool:
    """Whether the numbers of files on a device can be relied on."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    kinds = {
        line.partition(" - ")[2].split(" ")[0]
        for line in lines
        if len(fields := line.split(" ", 3)) > 3 and fields[2] == wanted
    }
    return bool(kinds) and kinds <= _NUMBERED
