"""The lines between the parts of a form, made as plain as the parser wants them.

RFC 2046 (5.1.1) allows text before the first such line and after the last, blanks after the boundary, and
content with lines that only begin like one. The library that parses forms takes exactly one form of them, and
in a piece in which it has met less it looks no further. So what it does not take is taken out on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MOST_BLANKS = 1024
_REST = re.compile(rb"(--)|[ \t]*\r\n")
_BLANK = re.compile(rb"[ \t]*\r?")


class PlainDelimiters:
    """Passes a form on, piece by piece, with plain delimiter lines and nothing around the first and the last.

    Args:
        boundary: of the form.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._held = b"\r\n"  # what a delimiter line may begin with, as the very first does
        self._passed = 0  # bytes of it that have been passed on nevertheless
        self._inside = self._over = False

    def pieces(self, piece: bytes) -> Iterator[bytes]:
        """What is to be parsed of the next piece; nothing behind the form's end."""
        if self._over:
            return
        data = self._held + piece
        start = self._passed  # of what is yet to be passed on
        at = 0  # of what is yet to be looked at
        while (found := data.find(self._delimiter, at)) >= 0:
            end = at = found + len(self._delimiter)
            if not self._inside:
                start = found
            line = _REST.match(data, end)
            if line is None:
                if len(data) < end + 2 or (len(data) < end + _MOST_BLANKS and _BLANK.fullmatch(data, end)):
                    break
                if self._inside:  # content that begins like a delimiter line: the parser gets no more at once
                    yield data[start : end + 2]
                    start = end + 2
                continue
            self._inside = True
            if line[1]:
                self._over = True
                yield data[start:end] + b"--"
                return
            at = line.end()
            if at > end + 2:
                yield data[start:end] + b"\r\n"
                start = at
        else:
            found = self._possible_start(data, at)
        if self._inside and found > start:
            yield data[start:found]
        self._held = data[found:]
        self._passed = max(0, start - found) if self._inside else 0

    def _possible_start(self, data: bytes, at: int) -> int:
        """Where a delimiter line may begin that is not there in full; the end of ``data`` if nowhere."""
        at = max(at, len(data) - len(self._delimiter) + 1)
        while (at := data.find(b"\r", at)) >= 0:
            if self._delimiter.startswith(data[at:]):
                return at
            at += 1
        return len(data)
