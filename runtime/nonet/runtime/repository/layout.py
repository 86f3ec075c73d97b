"""Triton's folder layout: ``<root>/<model>/config.pbtxt`` and ``<root>/<model>/<version>/model.onnx``.

Names come from callers too, so they are checked before they ever touch the file system. Everything whose
name starts with a dot is ignored: that is where publishing prepares its work.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nonet.runtime.errors import ModelRefused

CONFIG_FILE = "config.pbtxt"
MANIFEST_FILE = "manifest.json"
DEFAULT_MODEL_FILE = "model.onnx"

_NAME = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_][A-Za-z0-9_.\-]*(@[A-Za-z0-9_][A-Za-z0-9_.\-]*)?")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")

Fingerprint = tuple[tuple[str, int, int, int, int], ...]
"""What identifies files without reading them: (relative name, device, inode, size, mtime in ns) of each."""


@dataclasses.dataclass(frozen=True, slots=True)
class VersionFolder:
    """One version of a model: its number as text and its folder."""

    model: str
    version: str
    path: Path


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model: its name, folder and versions in ascending order."""

    name: str
    path: Path
    versions: tuple[VersionFolder, ...]


def is_model_name(name: str) -> bool:
    """Whether ``name`` may be a model's: letters, digits, ``_ . -``, not starting with a dot, 128 at most; or
    two such names with ``@`` between, a model's of one place (``prices@coast``)."""
    return _NAME.fullmatch(name) is not None


def is_version(version: str) -> bool:
    """Whether ``version`` is a positive decimal number without leading zeros, as Triton wants it."""
    return _VERSION.fullmatch(version) is not None


def scan(root: Path) -> dict[str, ModelFolder]:
    """The models under ``root`` by name. Raises FileNotFoundError or NotADirectoryError for a bad root."""
    models = {}
    for entry in _folders(root):
        if is_model_name(entry.name) and (folder := read_model(root, entry.name)) is not None:
            models[entry.name] = folder
    return dict(sorted(models.items()))


def read_model(root: Path, name: str) -> ModelFolder | None:
    """The model called ``name``, or None without such a folder or if it holds neither config nor version."""
    if not is_model_name(name):
        return None
    path = root / name
    try:
        found = [entry.name for entry in _folders(path) if is_version(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    versions = tuple(VersionFolder(name, version, path / version) for version in sorted(found, key=int))
    if not versions and not (path / CONFIG_FILE).is_file():
        return None
    return ModelFolder(name, path, versions)


def file_fingerprint(folder: Path, name: str) -> Fingerprint:
    """Fingerprint of one file, empty if it is not there."""
    fact = _fact(name, folder / name)
    return () if fact is None else (fact,)


def version_fingerprint(version: VersionFolder) -> Fingerprint:
    """Fingerprint of every file in a version folder, hidden ones left out."""
    facts = (_fact(name, version.path / name) for name in sorted(files_in(version.path)))
    return tuple(fact for fact in facts if fact is not None)


def files_in(folder: Path) -> list[str]:
    """Names of the files below ``folder``, relative, with ``/``; hidden files and folders left out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(place).relative_to(folder)
        found += [(base / name).as_posix() for name in files if not name.startswith(".")]
    return found


def inside(root: Path, folder: Path, name: str) -> Path:
    """The file ``name`` of ``folder``. Raises ModelRefused if it is missing, not a plain relative name, or
    if a link leads out of ``root``."""
    relative = PurePosixPath(name)
    if not name or "\\" in name or relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise ModelRefused(f"'{name}' is not a plain relative file name")
    path = folder / relative
    try:
        real = path.resolve(strict=True)
    except OSError:
        raise ModelRefused(f"file '{name}' is missing") from None
    if not real.is_relative_to(root.resolve()):
        raise ModelRefused(f"file '{name}' is a link that leads out of the repository")
    if not real.is_file():
        raise ModelRefused(f"'{name}' is not a file")
    return path


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir():
                yield entry


def _fact(name: str, path: Path) -> tuple[str, int, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # vanished between listing and looking: the next look will differ
        return None
    return name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
