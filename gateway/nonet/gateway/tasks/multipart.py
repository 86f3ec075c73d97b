"""``multipart/form-data`` (RFC 7578) over a body that is already there: in memory, or in a mapped file.

Algorithm: the delimiter is searched with ``bytes.find``, so a photo of any size costs one scan of linear time
and one copy. Strict where leniency is how parsers are made to disagree: the body starts with the delimiter,
each delimiter ends its line, each part has a name, the closing delimiter must be there and nothing but white
space may follow it. What looks like the delimiter but goes on is refused, not guessed at.
"""

from __future__ import annotations

import dataclasses
import mmap
import re

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge

MAX_PARTS = 64
MAX_PART_HEADERS = 16
MAX_PART_HEADER_BYTES = 8 * 1024
MAX_PADDING = 64

_STEP = 64 * 1024

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
# A parameter of a header: token or quoted string; a backslash in quotes takes the next character as it is.
_PARAMETER = re.compile(
    r';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))[ \t]*'
)
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One part of a form.

    Args:
        name: the field's name.
        filename: the client's name of the file, None for a plain field. Never used as a path.
        content_type: as declared, lower case, without parameters; "" if none was.
        data: the bytes.
    """

    name: str
    filename: str | None
    content_type: str
    data: bytes

    def text(self) -> str:
        """The data as UTF-8. Raises InvalidArgument, naming the field, if it is not."""
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidArgument(
                f"field '{self.name[:80]}' is not valid UTF-8", param=self.name[:80]
            ) from None


def boundary_of(content_type: str) -> bytes:
    """The boundary in a ``multipart/form-data`` content type. Raises InvalidArgument without a valid one."""
    _, parameters = _parse_parameters(content_type)
    boundary = parameters.get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise InvalidArgument(
            "Content-Type multipart/form-data needs a boundary of 1 to 70 characters", param="Content-Type"
        )
    return boundary.encode("ascii")


@dataclasses.dataclass(frozen=True, slots=True)
class PartPlace:
    """A part of a form, and where its data stand in the body; see :class:`Part`."""

    name: str
    filename: str | None
    content_type: str
    start: int
    end: int


def parse_form(body: bytes, boundary: bytes, *, max_parts: int = MAX_PARTS) -> list[Part]:
    """The parts of ``body``, in order.

    Raises InvalidArgument for a malformed form, PayloadTooLarge for more than ``max_parts`` parts or for part
    headers over their limits.
    """
    return [
        Part(place.name, place.filename, place.content_type, body[place.start : place.end])
        for place in locate_parts(body, boundary, max_parts=max_parts)
    ]


def locate_parts(body: bytes | mmap.mmap, boundary: bytes, *, max_parts: int = MAX_PARTS) -> list[PartPlace]:
    """Where the parts of ``body`` stand, in order; none of their data is copied. Raises as
    :func:`parse_form`."""
    dash = b"--" + boundary
    delimiter = b"\r\n" + dash
    if not _stands(body, dash, 0):
        if not _stands(body, delimiter, 0):
            raise _malformed("it does not start with the boundary")
        position = len(delimiter)
    else:
        position = len(dash)
    parts: list[PartPlace] = []
    while True:
        if _stands(body, b"--", position):
            rest = range(position + 2, len(body), _STEP)
            if any(body[start : start + _STEP].strip(b"\r\n \t") for start in rest):
                raise _malformed("something follows the closing boundary")
            return parts
        position = _end_of_line(body, position)
        if len(parts) >= max_parts:
            raise PayloadTooLarge(f"the form has more than {max_parts} parts", code="TOO_MANY_PARTS")
        headers, start = _headers(body, position)
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise _malformed("the closing boundary is missing")
        parts.append(_part(headers, start, end))
        position = end + len(delimiter)


def _stands(body: bytes | mmap.mmap, text: bytes, position: int) -> bool:
    """Whether ``text`` is at ``position``."""
    return body[position : position + len(text)] == text


def _end_of_line(body: bytes | mmap.mmap, position: int) -> int:
    """Past the line end after a delimiter; blanks may stand before it."""
    end = body.find(b"\r\n", position, position + MAX_PADDING + 2)
    if end < 0 or body[position:end].strip(b" \t"):
        raise _malformed("a boundary is not on a line of its own")
    return end + 2


def _headers(body: bytes | mmap.mmap, start: int) -> tuple[dict[bytes, str], int]:
    """The header fields of the part that starts at ``start``, and where its data begins."""
    if _stands(body, b"\r\n", start):
        raise _malformed("a part has no Content-Disposition")
    end = body.find(b"\r\n\r\n", start, start + MAX_PART_HEADER_BYTES)
    if end < 0:
        if len(body) - start > MAX_PART_HEADER_BYTES:
            raise PayloadTooLarge(
                f"the headers of a part are larger than {MAX_PART_HEADER_BYTES} bytes",
                code="PART_HEADERS_TOO_LARGE",
            )
        raise _malformed("the headers of a part do not end")
    lines = body[start:end].split(b"\r\n")
    if len(lines) > MAX_PART_HEADERS:
        raise PayloadTooLarge(
            f"a part has more than {MAX_PART_HEADERS} headers", code="PART_HEADERS_TOO_LARGE"
        )
    headers: dict[bytes, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or _FIELD_NAME.fullmatch(name) is None:
            raise _malformed("a part has a header line without a name")
        key = name.lower()
        if key in headers:
            raise _malformed("a part repeats a header")
        headers[key] = value.strip().decode("utf-8", "replace")
    return headers, end + 4


def _part(headers: dict[bytes, str], start: int, end: int) -> PartPlace:
    kind, parameters = _parse_parameters(headers.get(b"content-disposition", ""))
    name = parameters.get("name")
    if kind != "form-data" or not name:
        raise _malformed("a part has no Content-Disposition: form-data with a name")
    encoding = headers.get(b"content-transfer-encoding", "binary").lower()
    if encoding not in ("binary", "7bit", "8bit"):
        raise InvalidArgument(
            f"field '{name[:80]}' has a Content-Transfer-Encoding; forms carry bytes as they are",
            param=name[:80],
        )
    filename = parameters.get("filename")
    if filename is None and "filename*" in parameters:
        filename = parameters["filename*"]
    content_type, _, _ = headers.get(b"content-type", "").partition(";")
    return PartPlace(name, filename, content_type.strip().lower(), start, end)


def _parse_parameters(header: str) -> tuple[str, dict[str, str]]:
    """``kind; a=b; c="d"`` as its lower-case kind and its parameters. Raises InvalidArgument if malformed."""
    kind, _, _ = header.partition(";")
    position = len(kind)
    parameters: dict[str, str] = {}
    while position < len(header):
        match = _PARAMETER.match(header, position)
        if match is None:
            if header[position:].strip("; \t"):
                raise _malformed("a header has a parameter that cannot be read")
            break
        key = match[1].lower()
        if key in parameters:
            raise _malformed("a header repeats a parameter")
        quoted = match[2]
        # Browsers escape a quote as %22 and send other backslashes bare, so only \" and \\ are escapes.
        parameters[key] = match[3] if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
        position = match.end()
    return kind.strip().lower(), parameters


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(f"the multipart form is malformed: {why}", code="MALFORMED_FORM")
