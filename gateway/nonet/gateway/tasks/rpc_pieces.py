"""Messages of many or large parts, parsed a part at a time.

A parser keeps every other thread waiting for as long as it runs, and makes many times the memory of a
message out of it, if that holds millions of small ones. So what a message holds in bulk is found first, in
short steps, and is parsed, if at all, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge

__all__ = ["beside", "contents"]

_MOST_BESIDE = 64 << 10  # bytes
_MOST_FIELDS = 1 << 18
_SIZES = {1: 8, 5: 4}  # bytes by wire type
_VARINT, _LENGTH = 0, 2


def contents(raw: bytes, field: int) -> Iterator[bytes]:
    """Each content of a repeated, or the only one of a single, field of texts, bytes or messages, in order.

    Raises InvalidArgument where ``raw`` is no message, and PayloadTooLarge if it has more than 262,144
    fields, each element of a repeated one counted.
    """
    for number, kind, _, start, end in _records(raw):
        if number == field and kind == _LENGTH:
            yield raw[start:end]


def beside(raw: bytes, *fields: int) -> bytes:
    """The message ``raw`` without ``fields``.

    Raises as :func:`contents`, and InvalidArgument if this is more than 64 KiB.
    """
    left = bytearray()
    for number, _, begin, _, end in _records(raw):
        if number not in fields:
            if len(left) + end - begin > _MOST_BESIDE:
                raise InvalidArgument(f"the fields beside the scans are more than {_MOST_BESIDE} bytes")
            left += raw[begin:end]
    return bytes(left)


def _records(raw: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Each field as it stands there: its number, its wire type, and where the field, its content and what
    follows begin. See "Message Structure" in the Protocol Buffers encoding."""
    at, size = 0, len(raw)
    for _ in range(_MOST_FIELDS):
        if at == size:
            return
        begin = at
        tag, at = _varint(raw, at)
        start, kind = at, tag & 7
        if kind == _VARINT:
            _, at = _varint(raw, at)
        elif kind == _LENGTH:
            length, start = _varint(raw, at)
            at = start + length
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            raise _damaged()
        if at > size:
            raise _damaged()
        yield tag >> 3, kind, begin, start, at
    if at < size:
        raise PayloadTooLarge(f"the request has more than {_MOST_FIELDS} scans and other fields")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(raw):
            break
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _damaged()


def _damaged() -> InvalidArgument:
    return InvalidArgument("the request is not a valid message")
