"""The ``data`` of a tensor in JSON: lists of values to arrays and back, losing nothing silently.

Data may be flat, in row-major order, or nested exactly like the shape. Each data type takes one kind of JSON
value: BOOL true and false, integer types integers (3.0 is no integer), FP32 and FP64 finite numbers, BYTES
strings, which are their UTF-8 bytes. FP16 and BF16 have no JSON form.
"""

from __future__ import annotations

import itertools
from typing import Any, NoReturn

import numpy as np

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.fields import check_count, kind, shown
from nonet.runtime.tensors import Array, DataType, element_count

_WITHOUT_JSON = (DataType.FP16, DataType.BF16)
_KINDS: dict[DataType, frozenset[type]] = {
    datatype: frozenset(
        {bool}
        if datatype is DataType.BOOL
        else {str}
        if datatype is DataType.BYTES
        else {int, float}
        if datatype.is_float
        else {int}
    )
    for datatype in DataType
}


def decode(data: object, datatype: DataType, shape: tuple[int, ...], tensor: str, where: str) -> Array:
    """The array of ``shape`` that ``data`` stands for, read-only.

    ``tensor`` and ``where`` are for messages. Raises InvalidArgument if ``data`` is not a list, does not
    fill the shape, or holds a value the type does not take. Memory grows with the data, never with a shape.
    """
    if datatype in _WITHOUT_JSON:
        raise InvalidArgument(
            f"{tensor}: {datatype} has no JSON form; send it as binary tensor data", param=where
        )
    if not isinstance(data, list):
        raise InvalidArgument(f"{tensor}: data must be an array, got {shown(data)}", param=where)
    flat, kinds = _flatten(data, datatype, shape, tensor, where)
    if not kinds <= _KINDS[datatype]:
        _refuse_kind(flat, datatype, tensor, where)
    check_count(len(flat), datatype, shape, tensor, where)
    if datatype is DataType.BYTES:
        array = np.empty(len(flat), dtype=object)
        array[:] = [item.encode() for item in flat]
    elif datatype.is_float:
        array = _floats(flat, datatype, tensor, where)
    else:
        try:
            array = np.array(flat, dtype=datatype.numpy)
        except OverflowError:
            limits = np.iinfo(datatype.numpy)
            index = next(i for i, item in enumerate(flat) if not limits.min <= item <= limits.max)
            _refuse_range(flat[index], index, datatype, tensor, where)
    array.flags.writeable = False
    return array.reshape(shape)


def _flatten(
    data: list[Any], datatype: DataType, shape: tuple[int, ...], tensor: str, where: str
) -> tuple[list[Any], set[type]]:
    """Level by level, without recursion: nesting is as deep as the sender likes."""
    kinds = set(map(type, data))
    if list not in kinds:
        return data, kinds
    nesting: list[int] | None = [len(data)]
    while list in kinds:
        if kinds != {list}:
            raise InvalidArgument(f"{tensor}: data mixes arrays and values at one level", param=where)
        if nesting is not None:
            sizes = set(map(len, data))
            nesting = [*nesting, sizes.pop()] if len(sizes) == 1 else None
        data = list(itertools.chain.from_iterable(data))
        kinds = set(map(type, data))
    if nesting != list(shape) and not (nesting is not None and _empty_alike(nesting, shape)):
        check_count(len(data), datatype, shape, tensor, where)
        described = "unevenly" if nesting is None else f"as {nesting[:8]}"
        raise InvalidArgument(
            f"{tensor}: data is nested {described}, but shape is {list(shape)}; "
            "send it flat, or nested exactly like the shape",
            param=where,
        )
    return data, kinds


def _empty_alike(nesting: list[int], shape: tuple[int, ...]) -> bool:
    """An empty array has no levels below its first zero: [2, 0] stands for [2, 0, 3] as well."""
    return element_count(shape) == 0 and tuple(nesting) == shape[: len(nesting)]


def _refuse_kind(flat: list[Any], datatype: DataType, tensor: str, where: str) -> NoReturn:
    allowed = _KINDS[datatype]
    index = next(index for index, item in enumerate(flat) if type(item) not in allowed)
    item = flat[index]
    if datatype is DataType.BOOL:
        takes = "true or false"
    elif datatype is DataType.BYTES:
        takes = "strings"
    elif datatype.is_float:
        takes = "numbers"
    else:
        if isinstance(item, float) and abs(item) >= 2.0**63:  # what the parser makes of a larger integer
            _refuse_range(item, index, datatype, tensor, where)
        takes = "integers"
    got = kind(item) if isinstance(item, str) else shown(item)
    raise InvalidArgument(f"{tensor}: data[{index}] is {got}; {datatype} takes {takes}", param=where)


def _refuse_range(item: float, index: int, datatype: DataType, tensor: str, where: str) -> NoReturn:
    limits = np.iinfo(datatype.numpy)
    raise InvalidArgument(
        f"{tensor}: data[{index}] is {shown(item)}; {datatype} takes {limits.min} to {limits.max}",
        param=where,
    )


def _floats(flat: list[Any], datatype: DataType, tensor: str, where: str) -> Array:
    with np.errstate(over="ignore"):
        array = np.array(flat, dtype=datatype.numpy)
    finite = np.isfinite(array)
    if not finite.all():
        index = int(np.argmin(finite))
        raise InvalidArgument(
            f"{tensor}: data[{index}] is {shown(flat[index])}; {datatype} takes finite numbers up to "
            f"{float(np.finfo(datatype.numpy).max):.6g}",
            param=where,
        )
    return array


def encode(datatype: DataType, array: Array, name: str) -> Any:
    """The flat ``data`` of output ``name``: something orjson writes as one JSON array, exactly.

    Raises InvalidArgument if JSON cannot hold it: FP16, BF16, values that are not finite, BYTES that are not
    UTF-8. The caller may then ask for the binary form.
    """
    where = f"outputs.{name}"
    if datatype in _WITHOUT_JSON:
        raise InvalidArgument(
            f"output {shown(name)}: {datatype} has no JSON form; ask for it with binary_data", param=where
        )
    flat = np.ascontiguousarray(array, dtype=datatype.numpy).reshape(-1)
    if datatype is DataType.BYTES:
        try:
            return [item.decode() for item in flat]
        except UnicodeDecodeError:
            raise InvalidArgument(
                f"output {shown(name)} holds bytes that are not UTF-8 text; ask for it with binary_data",
                param=where,
            ) from None
    if datatype.is_float and not np.isfinite(flat).all():
        raise InvalidArgument(
            f"output {shown(name)} holds values that are not finite, which JSON cannot say; "
            "ask for it with binary_data",
            param=where,
        )
    return flat
