"""Tensors and data types of the Open Inference Protocol, version 2.

In memory a tensor is a C-contiguous little-endian numpy array: BOOL is ``bool``, BF16 is
``ml_dtypes.bfloat16``, BYTES is an ``object`` array of ``bytes``, the others are numpy's own types.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class DataType(enum.StrEnum):
    """The data types of the protocol; BYTES elements have a length of their own."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The in-memory element type."""
        return _NUMPY[self]

    @property
    def itemsize(self) -> int | None:
        """Bytes of one element on the wire; None for BYTES."""
        return None if self is DataType.BYTES else _NUMPY[self].itemsize

    @property
    def is_float(self) -> bool:
        return self in (DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64)

    @classmethod
    def of(cls, array: Array) -> DataType:
        """The protocol's type of a numpy array. Raises TypeError for a type the protocol lacks."""
        if array.dtype.kind in "OSU":
            return cls.BYTES
        try:
            return _BY_NUMPY[array.dtype.newbyteorder("=")]
        except KeyError:
            raise TypeError(f"the protocol has no data type for numpy {array.dtype}") from None


_NUMPY: dict[DataType, np.dtype[Any]] = {
    DataType.BOOL: np.dtype(np.bool_),
    DataType.UINT8: np.dtype("<u1"),
    DataType.UINT16: np.dtype("<u2"),
    DataType.UINT32: np.dtype("<u4"),
    DataType.UINT64: np.dtype("<u8"),
    DataType.INT8: np.dtype("<i1"),
    DataType.INT16: np.dtype("<i2"),
    DataType.INT32: np.dtype("<i4"),
    DataType.INT64: np.dtype("<i8"),
    DataType.FP16: np.dtype("<f2"),
    DataType.BF16: np.dtype(ml_dtypes.bfloat16),
    DataType.FP32: np.dtype("<f4"),
    DataType.FP64: np.dtype("<f8"),
    DataType.BYTES: np.dtype(object),
}
_BY_NUMPY: dict[np.dtype[Any], DataType] = {
    dtype: name for name, dtype in _NUMPY.items() if name is not DataType.BYTES
}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named tensor. ``data`` has exactly the tensor's shape and the in-memory type of ``datatype``."""

    name: str
    datatype: DataType
    data: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the content; for BYTES the sum of the elements' lengths."""
        if self.datatype is DataType.BYTES:
            return sum(map(len, self.data.reshape(-1).tolist()))
        return int(self.data.nbytes)

    @classmethod
    def of(cls, name: str, array: Array) -> Tensor:
        """Wrap a numpy array, finding the protocol's type from its dtype."""
        datatype = DataType.of(array)
        return cls(name, datatype, np.asarray(array, dtype=datatype.numpy, order="C"))

    @classmethod
    def of_bytes(cls, name: str, items: list[bytes], shape: tuple[int, ...] | None = None) -> Tensor:
        """A BYTES tensor of ``items``; shape ``(len(items),)`` unless given."""
        data = np.empty(len(items), dtype=object)
        data[:] = items
        return cls(name, DataType.BYTES, data if shape is None else data.reshape(shape))


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says of one input or output.

    ``shape`` is as metadata shows it: -1 where the size is free, and the leading batch dimension included
    (as -1) when the model batches. ``optional`` inputs may be left out.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    optional: bool = False

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` fits: same rank, equal sizes where the spec is not -1, no size below 1
        where the spec is -1 and leading (an empty batch is no batch)."""
        if shape[1:] == self.shape[1:] and self.shape[:1] == (-1,) and shape:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )


def element_count(shape: tuple[int, ...]) -> int:
    """Number of elements, in Python's unbounded integers: no overflow, no allocation."""
    return math.prod(shape)
