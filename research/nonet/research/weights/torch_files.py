"""The two containers of ``torch.save``: where the description of the tensors and their storages lie.

Both are read in place and bounded by the file's size: members of the zip form must be stored uncompressed, as
PyTorch writes them, so no member can be larger than the file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, Any, Final

import numpy as np

from nonet.research.weights.limits import CheckpointLimits, invalid, too_large
from nonet.research.weights.pickle_program import BoundedStream, StorageRef, TensorRef, interpret
from nonet.runtime.tensors import Array

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL: Final = 1001
_END_OF_DIRECTORY: Final = b"PK\x05\x06"
_END_OF_DIRECTORY_64: Final = b"PK\x06\x06"
_DIRECTORY_LIMIT: Final = 16 << 20
_ENCRYPTED: Final = 0x1
_DAMAGE: Final = (zipfile.BadZipFile, ValueError, struct.error, OSError, EOFError, NotImplementedError)


class Storages:
    """The flat arrays of a checkpoint by key."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def add(self, ref: StorageRef, data: bytes) -> None:
        """Keep ``data`` as the storage ``ref``. Raises InvalidArgument if its size is another."""
        if len(data) != ref.count * ref.dtype.itemsize:
            raise invalid("a storage has another size than described")
        self._arrays[ref.key] = np.frombuffer(data, dtype=ref.dtype)

    def get(self, ref: StorageRef) -> Array:
        array = self._arrays.get(ref.key)
        if array is None or array.dtype != ref.dtype or array.size != ref.count:
            raise invalid("a tensor names a storage that is missing or of another type")
        return array


def read_zip(file: IO[bytes], size: int, limits: CheckpointLimits) -> tuple[Any, Storages]:
    """Read the zip form. Returns the tree of :func:`interpret` and the storages it refers to."""
    _check_directory_size(file, size)
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGE as error:
        raise invalid("the zip archive is damaged") from error
    with archive:
        members = _members(archive, limits)
        programs = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise invalid("the archive is not one that PyTorch wrote (it needs one data.pkl)")
        prefix = programs[0].removesuffix("data.pkl")
        order = members.get(prefix + "byteorder")
        if order is not None and _member_bytes(archive, order, 16) != b"little":
            raise invalid("it was written on a big-endian machine")
        program = members[programs[0]]
        if program.file_size > limits.program_bytes:
            raise too_large("its description of the tensors is longer than the limit")
        tree = interpret(io.BytesIO(_member_bytes(archive, program, program.file_size)))
        storages = Storages()
        for ref in _storage_refs(tree, limits):
            member = members.get(f"{prefix}data/{ref.key}")
            if member is None or member.file_size != ref.count * ref.dtype.itemsize:
                raise invalid("a storage is missing or has another size than described")
            storages.add(ref, _member_bytes(archive, member, member.file_size))
    return tree, storages


def read_legacy(file: IO[bytes], size: int, limits: CheckpointLimits) -> tuple[Any, Storages]:
    """Read the form before PyTorch 1.6: programs one after the other, then the storages.

    Returns the tree of :func:`interpret` and the storages it refers to.
    """
    programs = BoundedStream(file, limits.program_bytes)
    if interpret(programs) != _LEGACY_MAGIC or interpret(programs) != _LEGACY_PROTOCOL:
        raise invalid("it is a pickle, but not one that PyTorch wrote")
    system = interpret(programs)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise invalid("it was written on a big-endian machine")
    tree = interpret(programs)
    keys = interpret(programs)
    refs = {ref.key: ref for ref in _storage_refs(tree, limits)}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise invalid("its list of storages is damaged")
    if set(keys) != set(refs) or len(keys) != len(refs):
        raise invalid("its list of storages does not match its tensors")
    storages = Storages()
    for key in keys:
        ref = refs[key]
        header = file.read(8)
        if len(header) != 8 or struct.unpack("<q", header)[0] != ref.count:
            raise invalid("a storage has another size than described")
        length = ref.count * ref.dtype.itemsize
        if length > size - file.tell():
            raise invalid("the file ends too early")
        storages.add(ref, file.read(length))
    return tree, storages


def _storage_refs(tree: Any, limits: CheckpointLimits) -> list[StorageRef]:
    """The distinct storages that the tensors of ``tree`` use; each container is visited once."""
    refs: dict[str, StorageRef] = {}
    seen: set[int] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, TensorRef):
            known = refs.setdefault(node.storage.key, node.storage)
            if known != node.storage:
                raise invalid("one storage is described in two ways")
        elif isinstance(node, dict | list | tuple) and id(node) not in seen:
            seen.add(id(node))
            pending.extend(node.values() if isinstance(node, dict) else node)
    if len(refs) > limits.tensors:
        raise too_large(f"it has more than {limits.tensors} entries")
    return list(refs.values())


def _check_directory_size(file: IO[bytes], size: int) -> None:
    """Refuse a huge member list before ``zipfile`` turns each of its entries into an object."""
    file.seek(max(0, size - (1 << 16) - 22 - 76))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(_END_OF_DIRECTORY)
    if end < 0 or len(tail) - end < 22:
        raise invalid("the zip archive is damaged")
    (directory,) = struct.unpack_from("<I", tail, end + 12)
    end64 = tail.rfind(_END_OF_DIRECTORY_64, 0, end)
    if end64 >= 0 and end - end64 >= 56:
        (large,) = struct.unpack_from("<Q", tail, end64 + 40)
        directory = large if directory == 0xFFFFFFFF else max(directory, large)
    if directory > _DIRECTORY_LIMIT:
        raise too_large("the archive has too many members")


def _members(archive: zipfile.ZipFile, limits: CheckpointLimits) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for member in archive.infolist():
        name = member.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise invalid("a member of the archive has a name that leaves it")
        if name in members:
            raise invalid("two members of the archive have the same name")
        if member.flag_bits & _ENCRYPTED:
            raise invalid("the archive is encrypted")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise invalid("the archive is compressed, which PyTorch never does")
        total += member.file_size
        members[name] = member
    if total > limits.file_bytes:
        raise too_large(f"the archive unpacks to more than {limits.file_bytes} bytes")
    return members


def _member_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    if member.file_size > limit:
        raise invalid("a member of the archive is larger than it should be")
    try:
        return archive.read(member)
    except _DAMAGE as error:
        raise invalid("the zip archive is damaged") from error
