"""Reading single fields of a request that nobody has checked yet: names, types, shapes, parameters.

Both codecs read through these functions, so REST and gRPC refuse the same things in the same words. Every
failure is an :class:`InvalidArgument` that names the field. What the caller sent is shown shortened and
escaped, and never in full: it may be large, deeply nested or hold control characters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import Parameter
from nonet.runtime.tensors import DataType, element_count

MAX_RANK = 32
"""Dimensions a tensor may have; numpy's own limit is 64."""

_MAX_DIMENSION = (1 << 63) - 1
_MAX_ELEMENTS = _MAX_DIMENSION // 8  # so that the bytes of no data type overflow
_MAX_SHOWN = 60
_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}
_BY_NAME: dict[str, DataType] = {datatype.value: datatype for datatype in DataType}
ALLOWED_DATATYPES = ", ".join(_BY_NAME)


def shown(value: object) -> str:
    """``value`` as a message shows it: text and numbers shortened and escaped, anything else by its kind."""
    if isinstance(value, str):
        return repr(value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "...")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return kind(value)


def kind(value: object) -> str:
    """What JSON calls a value of this kind, with its article."""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Names for a message, quoted; at most ``limit`` of them."""
    quoted = [shown(name) for name in names]
    rest = len(quoted) - limit
    return ", ".join(quoted[:limit]) + (f" and {rest} more" if rest > 0 else "") if quoted else "none"


def read_name(value: object, where: str) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{where} must be a non-empty string, got {shown(value)}", param=where)
    return value


def read_datatype(value: object, where: str) -> DataType:
    """One of the protocol's data types."""
    found = _BY_NAME.get(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgument(f"{where} must be one of {ALLOWED_DATATYPES}; got {shown(value)}", param=where)
    return found


def read_shape(value: object, where: str) -> tuple[int, ...]:
    """A list of sizes from 0 to 2^63-1 that an array could have. Nothing is allocated for them."""
    if not isinstance(value, list):
        raise InvalidArgument(f"{where} must be an array of integers, got {shown(value)}", param=where)
    if len(value) > MAX_RANK:
        raise InvalidArgument(
            f"{where} has {len(value)} dimensions; at most {MAX_RANK} are accepted", param=where
        )
    for axis, size in enumerate(value):
        if type(size) is not int or not 0 <= size <= _MAX_DIMENSION:
            raise InvalidArgument(
                f"{where}[{axis}] must be an integer from 0 to 2^63-1, got {shown(size)}", param=where
            )
    # numpy refuses such a shape even if another size is 0 and there is nothing to hold.
    if math.prod(size or 1 for size in value) > _MAX_ELEMENTS:
        sizes = ", ".join(map(str, value[:4])) + (", ..." if len(value) > 4 else "")
        raise InvalidArgument(f"{where} [{sizes}] is larger than any tensor can be", param=where)
    return tuple(value)


def check_count(got: int, datatype: DataType, shape: tuple[int, ...], tensor: str, where: str) -> None:
    """Whether ``got`` elements fill ``shape``; raises with both numbers if not."""
    expected = element_count(shape)
    if got != expected:
        raise InvalidArgument(
            f"{tensor}: data has {got} elements, but shape {list(shape)} of {datatype} needs {expected}",
            param=where,
        )


def read_parameters(value: object, where: str) -> dict[str, Parameter]:
    """A flat object of booleans, integers, finite numbers and strings; absent (None) means empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where} must be an object, got {shown(value)}", param=where)
    for name, item in value.items():
        if not isinstance(item, bool | int | float | str):
            raise InvalidArgument(
                f"{where}.{name[:_MAX_SHOWN]!r} must be a boolean, a number or a string, got {shown(item)}",
                param=where,
            )
        if isinstance(item, float) and not math.isfinite(item):
            raise InvalidArgument(f"{where}.{name[:_MAX_SHOWN]!r} must be finite, got {item}", param=where)
    return value


def read_flag(parameters: Mapping[str, Parameter], name: str, where: str) -> bool | None:
    """A boolean parameter, None if absent."""
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidArgument(f"{where}.{name} must be true or false, got {shown(value)}", param=where)
    return value


def read_size(parameters: Mapping[str, Parameter], name: str, where: str) -> int | None:
    """A non-negative integer parameter, None if absent."""
    value = parameters.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise InvalidArgument(
            f"{where}.{name} must be a non-negative integer, got {shown(value)}", param=where
        )
    return value
