"""Tensors as raw bytes: the form of the binary tensor data extension and of gRPC's raw contents.

Little-endian, row-major, without padding. BOOL is one byte per element, 0 or 1. BF16 and FP16 are two bytes.
Each BYTES element stands behind its length, 4 bytes little-endian. Big-endian or strided data has no form of
its own: the sender must lay it out like this.
"""

from __future__ import annotations

import numpy as np

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.tensors import Array, DataType, element_count

MAX_BYTES_ELEMENTS = 1 << 16
"""Each element of a BYTES tensor is an object of its own; millions of them would cost seconds."""

_LENGTH_PREFIX = 4


def decode(
    buffer: bytes | bytearray | memoryview,
    offset: int,
    size: int,
    datatype: DataType,
    shape: tuple[int, ...],
    tensor: str,
    where: str,
) -> Array:
    """The tensor in ``buffer[offset : offset + size]``, read-only.

    Fixed-size types alias the buffer; only if the bytes are not aligned for the type are they copied, once.
    ``tensor`` and ``where`` are for messages. The caller has made sure that the range lies in the buffer.
    Raises InvalidArgument if the bytes do not hold exactly ``shape``.
    """
    if datatype is DataType.BYTES:
        return _decode_bytes(buffer, offset, size, shape, tensor, where)
    check_size(size, datatype, shape, tensor, where)
    count = element_count(shape)
    dtype = datatype.numpy
    array: Array
    if count == 0:
        array = np.empty(shape, dtype)
    elif datatype is DataType.BOOL:
        octets = np.frombuffer(buffer, np.uint8, count, offset)
        if octets.max() > 1:
            raise InvalidArgument(f"{tensor}: a BOOL is one byte, 0 or 1; got {octets.max()}", param=where)
        array = octets.view(np.bool_)
    else:
        array = np.frombuffer(buffer, dtype, count, offset)
        if not array.flags.aligned:
            array = array.copy()
    array.flags.writeable = False
    return array.reshape(shape)


def check_size(size: int, datatype: DataType, shape: tuple[int, ...], tensor: str, where: str) -> None:
    """Raises InvalidArgument if ``size`` bytes cannot hold exactly ``shape``: of fixed-size types they must
    be as many as it needs, of BYTES no fewer than the lengths of its elements take, and those not too many.
    """
    count = element_count(shape)
    if datatype is not DataType.BYTES:
        needed = count * datatype.numpy.itemsize
        if needed != size:
            raise InvalidArgument(
                f"{tensor}: {size} bytes of data, but shape {list(shape)} of {datatype} needs {needed}",
                param=where,
            )
        return
    if count > MAX_BYTES_ELEMENTS:
        raise InvalidArgument(
            f"{tensor}: {count} elements, but a BYTES tensor may have at most {MAX_BYTES_ELEMENTS}",
            param=where,
        )
    if count * _LENGTH_PREFIX > size:
        raise InvalidArgument(
            f"{tensor}: {size} bytes of data, but the {count} elements of shape {list(shape)} need at least "
            f"{count * _LENGTH_PREFIX} for their lengths",
            param=where,
        )


def _decode_bytes(
    buffer: bytes | bytearray | memoryview,
    offset: int,
    size: int,
    shape: tuple[int, ...],
    tensor: str,
    where: str,
) -> Array:
    check_size(size, DataType.BYTES, shape, tensor, where)
    count = element_count(shape)
    array = np.empty(count, dtype=object)
    position, end = offset, offset + size
    for index in range(count):
        start = position + _LENGTH_PREFIX
        if start > end:
            raise InvalidArgument(
                f"{tensor}: the data ends inside the length of element {index} of {count}", param=where
            )
        length = int.from_bytes(buffer[position:start], "little")
        position = start + length
        if position > end:
            raise InvalidArgument(
                f"{tensor}: element {index} of {count} has length {length}, but {end - start} bytes are left",
                param=where,
            )
        array[index] = bytes(buffer[start:position])
    if position != end:
        raise InvalidArgument(
            f"{tensor}: {end - position} bytes are left after the {count} elements of shape {list(shape)}",
            param=where,
        )
    array.flags.writeable = False
    return array.reshape(shape)


def encode(datatype: DataType, array: Array) -> bytes:
    """The raw form of a tensor's data. Raises OverflowError for a BYTES element of 4 GiB or more."""
    if datatype is not DataType.BYTES:
        return array.astype(datatype.numpy, copy=False).tobytes()
    parts: list[bytes] = []
    for item in array.flat:
        parts += (len(item).to_bytes(_LENGTH_PREFIX, "little"), item)
    return b"".join(parts)
