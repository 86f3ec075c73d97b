"""The body of an identify request, read one scan at a time.

A parser keeps every other thread waiting for as long as it runs, and makes many times the memory of a text
out of it. So where the scans begin and end is found first, in short steps, and each is parsed alone: a body
of any size holds up other requests no longer than its largest scan does, and what cannot be a list of scans
costs nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

import orjson

from nonet.runtime.errors import InvalidArgument, ServingError, Unprocessable

__all__ = ["LONGEST_SCAN", "MAX_SCANS", "read_scans"]

MAX_SCANS: Final = 1024
LONGEST_SCAN: Final = 2 << 20
"""Bytes of one scan with all its readings."""

_MOST_BRACKETS: Final = 256
"""Brackets in one scan; those of transmitters with numbers have four."""
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_NAME: Final = re.compile(_STRING, re.DOTALL)
_LEVEL: Final = re.compile(rb'(?:[^{}\[\]"]++|' + _STRING + rb")*+", re.DOTALL)
"""What stands between two brackets; brackets in strings are none."""
_VALUE: Final = re.compile(rb'[{\["0-9tfn-]')


def read_scans(body: bytes) -> list[bytes]:
    """The scans of an identify request, each as the JSON of transmitter to dBm, which the service judges.

    Raises Unprocessable for JSON of another structure, InvalidArgument for none, for too many scans at once,
    or for one of more than ``LONGEST_SCAN`` bytes. The first thing that is wrong decides.
    """
    text = _Text(body)
    if not text.peek():
        raise InvalidArgument("the body is empty; send a JSON object with 'scans'", param="scans")
    _check_kind(text, b"{", "the body must be a JSON object with 'scans', a list")
    scans: list[bytes] | None = None
    for _ in text.items(b"{", b"}"):
        name = text.name()
        if name != "scans":
            raise Unprocessable(
                f"unknown field {name[:80]!r}; the only field is scans", param=name[:80], code="UNKNOWN_FIELD"
            )
        if scans is not None:
            raise Unprocessable("field 'scans' is repeated; send one list", param="scans")
        _check_kind(text, b"[", "field 'scans' must be a list of scans")
        scans = [_scan(text, index) for index in text.items(b"[", b"]")]
    if text.peek():
        raise text.malformed("the end")
    if scans is None:
        raise Unprocessable("the body must be a JSON object with 'scans', a list", param="scans")
    if not scans:
        raise InvalidArgument("field 'scans' is empty; send at least one scan", param="scans")
    return scans


def _scan(text: _Text, index: int) -> bytes:
    if index == MAX_SCANS:
        raise InvalidArgument(
            f"field 'scans' has more than {MAX_SCANS} scans; send at most {MAX_SCANS} at once", param="scans"
        )
    structure = (
        f"field 'scans[{index}]' must be an object with 'rssi' (transmitter to dBm) and 'id' (a text or a "
        "number) at most"
    )
    if text.peek() != b"[":
        _check_kind(text, b"{", structure)
    found = text.value(f"scans[{index}]")
    try:
        scan = orjson.loads(found)
    except orjson.JSONDecodeError as error:
        raise _malformed(f"{error.msg} (in scans[{index}])") from None
    if (
        not isinstance(scan, dict)
        or not isinstance(scan.get("rssi"), dict)
        or not scan.keys() <= {"id", "rssi"}
        or not isinstance(scan.get("id"), str | int | None)
    ):
        raise Unprocessable(structure, param="scans")
    return orjson.dumps(scan["rssi"])


def _check_kind(text: _Text, opening: bytes, structure: str) -> None:
    """Raises Unprocessable, saying ``structure``, where another kind of JSON value begins, InvalidArgument
    where none does."""
    following = text.peek()
    if following == opening:
        return
    if _VALUE.match(following):
        raise Unprocessable(structure, param="scans")
    raise text.malformed("a JSON value")


class _Text:
    """A JSON text and how far it has been read. What it raises is InvalidArgument."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def peek(self) -> bytes:
        """The next character that is no space; empty at the end."""
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._text[self._at : self._at + 1]

    def items(self, opening: bytes, closing: bytes) -> Iterator[int]:
        """Number of each item of an object or a list; the caller reads it before the next is asked for."""
        self._take(opening)
        if self.peek() == closing:
            self._at += 1
            return
        for index in itertools.count():
            yield index
            if self.peek() == closing:
                self._at += 1
                return
            self._take(b",")

    def name(self) -> str:
        """The name of a field, with the colon behind it."""
        self.peek()
        found = _NAME.match(self._text, self._at, self._at + LONGEST_SCAN)
        if found is None:
            raise self.malformed("the name of a field")
        try:
            name: str = orjson.loads(found[0])
        except orjson.JSONDecodeError as error:
            raise _malformed(error.msg) from None
        self._at = found.end()
        self._take(b":")
        return name

    def value(self, what: str) -> bytes:
        """The object or list that begins here, unparsed; refused as ``what`` if it is too long or does not
        end."""
        start, depth = self._at, 0
        end = start + LONGEST_SCAN
        for _ in range(_MOST_BRACKETS):
            level = _LEVEL.match(self._text, self._at, end)
            self._at = level.end() if level else self._at
            bracket = self._text[self._at : self._at + 1] if self._at < end else b""
            if bracket in (b"{", b"["):
                depth += 1
            elif bracket in (b"}", b"]"):
                depth -= 1
            elif end < len(self._text):
                raise InvalidArgument(
                    f"field '{what}' is longer than {LONGEST_SCAN} bytes; send fewer readings", param="scans"
                )
            else:
                raise _malformed(f"{what} does not end")
            self._at += 1
            if depth == 0:
                return self._text[start : self._at]
        raise InvalidArgument(f"field '{what}' has too many lists or objects in it", param="scans")

    def malformed(self, expected: str) -> ServingError:
        return _malformed(f"{expected} was expected at byte {self._at}")

    def _take(self, character: bytes) -> None:
        if self.peek() != character:
            raise self.malformed(f"'{character.decode()}'")
        self._at += 1


def _malformed(reason: str) -> ServingError:
    return InvalidArgument(f"the body is not valid JSON: {reason}", code="MALFORMED_JSON")
