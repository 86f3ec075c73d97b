"""Further files of a version that services read, as the manifest describes them: vocabularies, facts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.layout import inside
from nonet.runtime.repository.manifest import Manifest

__all__ = ["Companions"]

_LARGEST = 256 << 20


class Companions:
    """The files of one version.

    Args:
        root: of the repository.
        folder: of the version.
        manifest: lists the files; without one there are none.
    """

    def __init__(self, root: Path, folder: Path, manifest: Manifest | None) -> None:
        self._root = root
        self._folder = folder
        self._hashes = {} if manifest is None else manifest.files

    def read(self, name: str, largest: int = _LARGEST) -> bytes:
        """A file's content. Raises ModelRefused if it is missing, not listed, changed, or larger than
        ``largest`` bytes."""
        if name not in self._hashes:
            raise ModelRefused(f"it needs the file '{name}', which its manifest.json does not list")
        path = inside(self._root, self._folder, name)
        try:
            with path.open("rb") as file:
                content = file.read(largest + 1)
        except OSError as error:
            raise ModelRefused(f"file '{name}' cannot be read ({error.strerror})", permanent=False) from None
        if len(content) > largest:
            raise ModelRefused(f"file '{name}' is larger than {largest} bytes")
        if hashlib.sha256(content).hexdigest() != self._hashes[name]:
            raise ModelRefused(f"file '{name}' is not the one that manifest.json describes", permanent=False)
        return content
