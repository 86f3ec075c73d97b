"""One door for every kind of weights file: PyTorch's two formats and safetensors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from nonet.research.weights.limits import CheckpointLimits, invalid, too_large
from nonet.research.weights.pickle_program import TensorRef
from nonet.research.weights.torch_files import Storages, read_legacy, read_zip
from nonet.runtime.tensors import Array

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_checkpoint(path: Path, limits: CheckpointLimits | None = None) -> dict[str, Array]:
    """Read every tensor of a checkpoint; the format is found from the content, nothing in it is executed.

    Accepted: PyTorch files (the zip format of 1.6 and later and the older one) and safetensors. Nested
    dictionaries and lists become dotted names: ``{"model": {"head.weight": t}}`` gives
    ``"model.head.weight"``. What is not a tensor (an epoch, say) is left out. bfloat16 tensors come as
    ``ml_dtypes.bfloat16``.

    Returns tensors by name, in the file's order, each C-contiguous, little-endian and with memory of its own.
    Raises InvalidArgument (``CHECKPOINT_INVALID``) for a file that is damaged, hostile or of another kind,
    PayloadTooLarge (``CHECKPOINT_TOO_LARGE``) for one over ``limits``, OSError if it cannot be opened.
    """
    limits = limits or CheckpointLimits()
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise too_large(f"the file has {size} bytes, the limit is {limits.file_bytes}")
    with path.open("rb") as file:
        magic = file.read(9)
        file.seek(0)
        if magic.startswith(_ZIP_MAGIC):
            tree, storages = read_zip(file, size, limits)
        elif magic[4:] == b"\0\0\0\0{":
            # Before pickle: the first byte of a safetensors header's length may be a pickle's first byte.
            return _read_safetensors(file.read(limits.file_bytes), limits)
        elif magic.startswith(_PICKLE_MAGIC):
            tree, storages = read_legacy(file, size, limits)
        else:
            raise invalid("it is neither a PyTorch file nor safetensors")
    return _Collector(storages, limits).collect(tree)


class _Collector:
    """Walks the tree of a PyTorch checkpoint and copies out its tensors within the limits."""

    def __init__(self, storages: Storages, limits: CheckpointLimits) -> None:
        self._storages = storages
        self._limits = limits
        self._nodes_left = limits.tensors
        self._bytes_left = limits.tensor_bytes
        self._found: dict[str, Array] = {}

    def collect(self, tree: Any) -> dict[str, Array]:
        self._visit("", tree, self._limits.depth)
        if not self._found:
            raise invalid("it holds no tensors")
        return self._found

    def _visit(self, name: str, node: Any, depth: int) -> None:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise too_large(f"it has more than {self._limits.tensors} entries")
        if isinstance(node, TensorRef):
            if name in self._found:
                raise invalid("two tensors have the same name")
            self._found[name or "tensor"] = self._materialise(node)
        elif isinstance(node, dict | list | tuple):
            if depth == 0:
                raise too_large(f"it is nested more than {self._limits.depth} levels deep")
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for key, child in items:
                if isinstance(key, str | int):
                    self._visit(f"{name}.{key}" if name else str(key), child, depth - 1)

    def _materialise(self, ref: TensorRef) -> Array:
        dtype = ref.storage.dtype
        flat = self._storages.get(ref.storage)
        count = math.prod(ref.shape)
        if count == 0:
            return np.empty(ref.shape, dtype=dtype)
        self._bytes_left -= count * dtype.itemsize
        if self._bytes_left < 0:
            raise too_large(f"its tensors need more than {self._limits.tensor_bytes} bytes")
        view = np.lib.stride_tricks.as_strided(
            flat[ref.offset :],
            shape=ref.shape,
            strides=tuple(stride * dtype.itemsize for stride in ref.strides),
        )
        return np.array(view, order="C", copy=True)


def _read_safetensors(data: bytes, limits: CheckpointLimits) -> dict[str, Array]:
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise invalid("the safetensors header is damaged") from error
    if len(entries) > limits.tensors:
        raise too_large(f"it has more than {limits.tensors} entries")
    found: dict[str, Array] = {}
    for name, entry in entries:
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
        if dtype is None:
            raise invalid(f"tensors of type {entry['dtype']} are not read")
        found[name] = np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"]).copy()
    if not found:
        raise invalid("it holds no tensors")
    return found
