"""What a PyTorch checkpoint's pickle says, without running it.

A pickle is a program for a small stack machine; the danger lies in three instructions that look up and call
Python objects. This interpreter has its own version of them that knows a fixed list of names, all of them
describing tensors, and builds inert records. Every other name is refused, so nothing is imported or called.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
from collections.abc import Callable
from typing import IO, Any, Final, Protocol

import ml_dtypes
import numpy as np

from nonet.research.weights.limits import invalid, too_large

STORAGE_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
_LARGEST_COUNT: Final = 1 << 48


@dataclasses.dataclass(frozen=True, slots=True)
class StorageRef:
    """A flat piece of memory kept beside the program: ``count`` elements of ``dtype`` under ``key``."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class TensorRef:
    """A strided view into a storage; offset and strides count elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """A name the program looked up; only a marker for the few that have a meaning here."""

    text: str


class ReadableStream(Protocol):
    """The part of a binary file that the disassembler uses."""

    def read(self, size: int = -1, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class BoundedStream:
    """A binary file of which at most ``limit`` bytes may be read. Raises PayloadTooLarge beyond that."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file = file
        self._left = limit

    def read(self, size: int = -1, /) -> bytes:
        if size < 0 or size > self._left:
            raise too_large("its description of the tensors is longer than the limit")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        if len(line) > self._left:
            raise too_large("its description of the tensors is longer than the limit")
        self._left -= len(line)
        return line

    def tell(self) -> int:
        return self._file.tell()


def interpret(stream: ReadableStream) -> Any:
    """Evaluate one pickle program up to its STOP; the stream is left just behind it.

    Returns plain dicts, lists, tuples, numbers, strings, None, :class:`StorageRef` and :class:`TensorRef`.
    Raises InvalidArgument for a damaged program or one that names anything but tensors, PayloadTooLarge
    if the stream says so.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            machine.step(opcode.name, argument)
        return machine.result()
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise invalid("its description of the tensors is damaged") from error


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(item) is int and item >= 0 for item in value):
        raise invalid("a tensor has a size or stride that is not a natural number")
    return value


def _rebuild_tensor(*arguments: Any) -> TensorRef:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StorageRef):
        raise invalid("a tensor has no storage")
    (start,) = _sizes((offset,))
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise invalid("a tensor has more sizes than strides, or fewer")
    if len(shape) > 32 or math.prod(max(size, 1) for size in shape) > _LARGEST_COUNT:
        raise invalid("a tensor has more than 32 dimensions or an impossible size")
    strides = tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise invalid("a tensor reaches beyond its storage")
    return TensorRef(storage, start, shape, strides)


def _rebuild_parameter(*arguments: Any) -> Any:
    return arguments[0]


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    (pairs,) = arguments or ((),)
    return {_key(key): value for key, value in pairs}


def _key(value: Any) -> str | int:
    """``value`` as a key. Refusing all else also keeps hashing from recursing into deeply nested tuples."""
    if not isinstance(value, str | int):
        raise invalid("a dictionary has a key that is neither text nor a number")
    return value


_CALLS: Final[dict[str, Callable[..., Any]]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
}

_CONSTANTS: Final[dict[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS: Final = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG", "BINFLOAT", "FLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
)
_PUTS: Final = frozenset({"BINPUT", "LONG_BINPUT", "PUT"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET", "GET"})
_EMPTY: Final[dict[str, Callable[[], Any]]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Stack, marks and memo of one program."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._stopped = False

    def result(self) -> Any:
        if not self._stopped or len(self._stack) != 1:
            raise invalid("its description of the tensors is damaged")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _PUTS:
            self._memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        else:
            self._step_rare(name, argument)

    def _step_rare(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                self._stopped = True
            case "MARK":
                self._marks.append(len(stack))
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "TUPLE":
                stack.append(tuple(self._pop_marked()))
            case "LIST":
                stack.append(self._pop_marked())
            case "DICT":
                items = self._pop_marked()
                stack.append({})
                self._set_items(items)
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS":
                self._extend(self._pop_marked())
            case "SETITEM":
                self._set_items(self._pop(2))
            case "SETITEMS":
                self._set_items(self._pop_marked())
            case "GLOBAL":
                stack.append(_Name(argument))
            case "STACK_GLOBAL":
                module, attribute = self._pop(2)
                stack.append(_Name(f"{module} {attribute}"))
            case "REDUCE":
                callee, arguments = self._pop(2)
                stack.append(self._call(callee, arguments))
            case "BINPERSID":
                stack.append(self._storage(self._pop(1)[0]))
            case "BUILD":
                # Attributes of an OrderedDict: module versions that PyTorch keeps beside a state dict.
                self._pop(1)
            case _:
                raise invalid(f"it uses the pickle instruction {name}, which no saved tensor needs")

    def _pop(self, count: int) -> list[Any]:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) - count < floor:
            raise invalid("its description of the tensors is damaged")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise invalid("its description of the tensors is damaged")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise invalid("its description of the tensors is damaged")
        target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def _call(self, callee: Any, arguments: Any) -> Any:
        if not isinstance(callee, _Name) or not isinstance(arguments, tuple):
            raise invalid("it calls something that is not a name")
        if callee.text not in _CALLS:
            raise invalid(f"it asks to run {_shown(callee.text)}; only plain tensors are read")
        return _CALLS[callee.text](*arguments)

    def _storage(self, identity: Any) -> StorageRef:
        match identity:
            case ("storage", _Name(text=kind), str(key), str(), int(count), *_) if count >= 0:
                if kind not in STORAGE_TYPES:
                    raise invalid(f"it holds a {_shown(kind)}; only plain tensors are read")
                return StorageRef(key, STORAGE_TYPES[kind], count)
        raise invalid("a tensor's storage is described in an unknown way")


def _shown(name: str) -> str:
    """A name from the file, safe to put into a one-line message."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80]).replace(" ", ".")
