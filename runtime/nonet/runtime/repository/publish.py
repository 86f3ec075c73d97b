"""Atomic publish: a version appears in the repository whole, or not at all.

Everything is written and flushed to disk in a hidden folder of the repository, checked there as a server
would check it, and then renamed into place, which the file system does in one step. A publisher that is
killed leaves only its hidden folder behind; scans ignore it and the next publish or server start removes it.
Publishers of one repository take turns, by a lock on the repository's folder that dies with its process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nonet.runtime.errors import (
    Conflict,
    InsufficientStorage,
    InvalidArgument,
    ModelRefused,
    PermissionDenied,
)
from nonet.runtime.repository.config import parse_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.labels import LABELS_FILE, read_labels, write_labels
from nonet.runtime.repository.layout import (
    CONFIG_FILE,
    MANIFEST_FILE,
    ModelFolder,
    VersionFolder,
    is_model_name,
    is_version,
    read_model,
)
from nonet.runtime.repository.loader import prepare_version
from nonet.runtime.repository.manifest import Manifest, read_manifest
from nonet.runtime.repository.ownership import may_change, owner_of_folder

STAGE_PREFIX = ".publish-"

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


def publish_version(
    root: Path,
    name: str,
    files: Mapping[str, bytes | Path],
    config: str,
    manifest: Manifest,
    *,
    labels: Sequence[str] = (),
    version: int | None = None,
    replace: bool = False,
) -> VersionFolder:
    """Add a version to the repository.

    Args:
        root: the repository; created if absent.
        name: of the model.
        files: the version's files by relative name: their content, or a file to copy.
        config: text of ``config.pbtxt``.
        manifest: what is known of the version; its ``files`` are replaced by the hashes of ``files``, its
            ``owner`` by that of the model if it exists.
        labels: class names; written as ``labels.txt`` of the model unless empty.
        version: number of the version; the next free one by default.
        replace: an existing model with another configuration or other labels is replaced as a whole, its
            older versions with it. Without it, that is a Conflict, since those files belong to all versions.

    Returns the published version's folder. Raises InvalidArgument for a bad name, number or content,
    Conflict if the version exists or the model differs, PermissionDenied (``MODEL_NOT_YOURS``) for the
    model of another owner, InsufficientStorage when the disk is full.
    """
    if not is_model_name(name):
        raise InvalidArgument(
            f"'{name}' cannot be a model's name: use letters, digits, '_', '.', '-', not starting with '.'",
            param="name",
        )
    if version is not None and not is_version(str(version)):
        raise InvalidArgument(f"version must be a number from 1, got {version}", param="version")
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root):
        _remove_stages(root)
        stage = root / f"{STAGE_PREFIX}{uuid.uuid4().hex}"
        try:
            existing = read_model(root, name)
            number = str(version or _next_version(existing))
            if existing is not None and any(known.version == number for known in existing.versions):
                raise Conflict(f"model '{name}' already has a version {number}", param="version")
            if existing is not None:
                owner = owner_of_folder(existing)
                if not may_change(owner, manifest.owner):
                    raise PermissionDenied(
                        f"model '{name}' belongs to another tenant", param="name", code="MODEL_NOT_YOURS"
                    )
                manifest = manifest.model_copy(update={"owner": owner})
            staged = _stage(stage, name, number, files, config, manifest, labels)
            _move_into_place(root, staged, number, replace=replace)
        except OSError as error:
            if error.errno in _OUT_OF_SPACE:
                raise InsufficientStorage(f"no space left to publish model '{name}'") from error
            raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return VersionFolder(name, number, root / name / number)


def republish_version(
    root: Path,
    name: str,
    version: str,
    *,
    command: str = "",
    source: Mapping[str, Any] | None = None,
) -> VersionFolder:
    """Publish the files of a version once more, as the newest, to serve from then on.

    Args:
        root: the repository.
        name: of the model.
        version: whose files.
        command: for the manifest: why it is there again; by default what made it.
        source: further facts for the manifest.

    Raises ModelRefused if the version is not there or has no sound manifest, and what
    :func:`publish_version` raises.
    """
    folder = read_model(root, name)
    found = next((each for each in folder.versions if each.version == version), None) if folder else None
    manifest = read_manifest(found.path / MANIFEST_FILE) if found is not None else None
    if folder is None or found is None or manifest is None:
        raise ModelRefused(f"version {version} of '{name}' is no longer there, or has no manifest.json")
    return publish_version(
        root,
        name,
        {each: found.path / each for each in manifest.files},
        _text(folder.path / CONFIG_FILE),
        manifest.model_copy(
            update={
                "command": command or manifest.command,
                "source": {**manifest.source, **(source or {})},
                "shadow_rows": 0,
            }
        ),
        labels=_labels_or_none(folder.path) or (),
    )


def check_writable(root: Path, name: str = "") -> None:
    """Whether a version of model ``name`` could be published, as far as the folders' permissions say.

    Raises InsufficientStorage (``REPOSITORY_READ_ONLY``) if not.
    """
    folders = [root, root / name] if name and is_model_name(name) else [root]
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise InsufficientStorage(
                "the model repository is read-only here, and this work ends with a new version in it; the "
                "operator must make it writable",
                code="REPOSITORY_READ_ONLY",
            )


def remove_model(root: Path, name: str) -> bool:
    """Remove a model with all its versions from the repository, in one step; False if it is not there.

    What serves goes on until its server looks again. Raises OSError if it cannot be removed.
    """
    if read_model(root, name) is None:
        return False
    with _lock(root):
        doomed = root / f"{STAGE_PREFIX}{uuid.uuid4().hex}"
        try:
            os.rename(root / name, doomed)
        except FileNotFoundError:
            return False
        _flush_folder(root)
        shutil.rmtree(doomed, ignore_errors=True)
    return True


def prune_versions(root: Path, name: str, keep: int, in_use: Collection[str]) -> list[str]:
    """Remove the oldest versions of a model, each in one step; returns which, oldest first.

    The ``keep`` newest stay, those ``in_use`` stay, and so does all that is newer than the newest in use,
    which may yet come into use: without any, nothing is removed. What other servers of the repository have
    loaded goes on there. Raises OSError if a version cannot be removed, ValueError for ``keep`` below 1.
    """
    if keep < 1:
        raise ValueError(f"at least the newest version is kept, got keep={keep}")
    removed = []
    with _lock(root):
        folder = read_model(root, name)
        newest = max(map(int, in_use), default=0)
        for version in folder.versions[:-keep] if folder is not None else ():
            if version.version not in in_use and int(version.version) < newest:
                doomed = root / f"{STAGE_PREFIX}{uuid.uuid4().hex}"
                os.rename(version.path, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                removed.append(version.version)
    return removed


def remove_leftovers(root: Path) -> None:
    """Delete what killed publishers left behind, unless a publisher is at work or the folder is read-only."""
    with contextlib.suppress(OSError), _lock(root, wait=False):
        _remove_stages(root)


def _stage(
    stage: Path,
    name: str,
    number: str,
    files: Mapping[str, bytes | Path],
    config: str,
    manifest: Manifest,
    labels: Sequence[str],
) -> ModelFolder:
    """Write the whole model into the hidden folder, flushed, and check it there as a server would."""
    model = stage / name
    folder = model / number
    folder.mkdir(parents=True)
    hashes = {}
    for file_name, content in files.items():
        if file_name == MANIFEST_FILE or Path(file_name).is_absolute() or ".." in Path(file_name).parts:
            raise InvalidArgument(f"'{file_name}' cannot be a file of a version", param="files")
        target = folder / file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        hashes[file_name] = _write(target, content)
    complete = manifest.model_copy(update={"files": hashes})
    _write(folder / MANIFEST_FILE, complete.to_json().encode())
    _write(model / CONFIG_FILE, config.encode())
    if labels:
        _write(model / LABELS_FILE, write_labels(tuple(labels)))
    staged = read_model(stage, name)
    if staged is None:
        raise OSError(errno.EIO, "the staged model vanished")
    try:
        prepare_version(
            stage, staged, staged.versions[0], parse_config(config), hasher=FileHasher(), strict=True
        )
    except ModelRefused as refused:
        raise InvalidArgument(f"model '{name}' cannot be published: {refused.reason}") from None
    for place, _, _ in os.walk(stage, topdown=False):
        _flush_folder(Path(place))
    return staged


def _move_into_place(root: Path, staged: ModelFolder, number: str, *, replace: bool) -> None:
    target = root / staged.name
    existing = read_model(root, staged.name)
    if existing is None:
        if target.exists():  # a folder without config and versions is no model, and in the way
            _exchange(staged.path, target)
        else:
            os.rename(staged.path, target)
    elif _same_model(existing, staged):
        os.rename(staged.path / number, target / number)
        _flush_folder(target)
    elif replace:
        _exchange(staged.path, target)
    else:
        raise Conflict(
            f"model '{staged.name}' exists with another configuration or other labels; "
            "publish under another name, or replace the model as a whole"
        )
    _flush_folder(root)


def _same_model(existing: ModelFolder, staged: ModelFolder) -> bool:
    """Whether configuration (by meaning) and labels are equal."""
    try:
        before = parse_config(_text(existing.path / CONFIG_FILE))
        after = parse_config(_text(staged.path / CONFIG_FILE))
    except ModelRefused:
        return False
    same_labels = _labels_or_none(existing.path) == _labels_or_none(staged.path)
    return before.proto == after.proto and before.says_batch == after.says_batch and same_labels


def _labels_or_none(model: Path) -> tuple[str, ...] | None:
    path = model / LABELS_FILE
    return read_labels(path) if path.is_file() else None


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _next_version(existing: ModelFolder | None) -> int:
    return 1 + max((int(known.version) for known in existing.versions), default=0) if existing else 1


def _write(target: Path, content: bytes | Path) -> str:
    """Write or copy, flushed to disk; returns the sha256 of what was written."""
    digest = hashlib.sha256()
    with target.open("xb") as file:
        if isinstance(content, Path):
            with content.open("rb") as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    file.write(block)
        else:
            digest.update(content)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(staged: Path, target: Path) -> None:
    """Swap two folders in one step, so that there is no moment without the model."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise Conflict("this system cannot swap folders in one step; publish under another name") from None
    paths = (os.fsencode(staged), os.fsencode(target))
    if swap(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS):
            raise Conflict("this file system cannot swap folders in one step; publish under another name")
        raise OSError(code, os.strerror(code))


@contextlib.contextmanager
def _lock(root: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the publishers' lock. Raises BlockingIOError if it is taken and ``wait`` is False."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove_stages(root: Path) -> None:
    for leftover in root.glob(f"{STAGE_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
