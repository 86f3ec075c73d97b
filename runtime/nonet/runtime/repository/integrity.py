"""Hashes of files, remembered for as long as inode, size and modification time stay the same."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.layout import inside
from nonet.runtime.repository.manifest import Manifest

_MOST_REMEMBERED = 4096


class FileHasher:
    """sha256 of files; a file that was hashed before and did not change is not read again. Thread-safe.

    A change that keeps inode, size and both times to the nanosecond is not noticed; a new hasher reads
    everything again (``nonet models verify`` uses one).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int, int, int, int], str] = {}

    def sha256(self, path: Path) -> str:
        """Hex digest of the file. Raises OSError as reading does."""
        with path.open("rb") as file:
            status = _identity(os.fstat(file.fileno()))
            with self._lock:
                known = self._known.get(status)
            if known is not None:
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _identity(path.stat()) == status:  # it did not change while it was read
            with self._lock:
                if len(self._known) >= _MOST_REMEMBERED:
                    self._known.clear()
                self._known[status] = digest
        return digest


def verify_files(root: Path, folder: Path, manifest: Manifest, hasher: FileHasher) -> None:
    """Check every file the manifest lists. Raises ModelRefused at the first that is missing or differs."""
    for name, expected in sorted(manifest.files.items()):
        path = inside(root, folder, name)
        try:
            actual = hasher.sha256(path)
        except OSError as error:
            raise ModelRefused(f"file '{name}' cannot be read ({error.strerror})", permanent=False) from None
        if actual != expected:
            raise ModelRefused(
                f"file '{name}' does not match its hash in manifest.json "
                f"(expected {expected[:12]}..., found {actual[:12]}...): damaged or not fully copied"
            )


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
