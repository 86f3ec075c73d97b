"""``multipart/form-data`` (RFC 7578) as it arrives: plain fields in memory, each file where it is to go.

The parsing is the library ``multipart``'s, in pieces of any size; what is ours is the bounds, the words of
the refusals, and that a file is written down while it comes, so that no second copy of an upload exists.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
)

from nonet.gateway.tasks.form_delimiters import PlainDelimiters
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, ServingError

MAX_PARTS = 64
MAX_PART_HEADERS = 16
MAX_PART_HEADER_BYTES = 8 * 1024

_STEP = 256 * 1024
"""Bytes that are parsed at once: of more, another copy would be in memory."""

# Wider than RFC 2046 has them, as senders are: many quote no boundary, and any printable one can be found.
_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_ESCAPED = re.compile(r"\\(.)")
_BOUNDARY = re.compile(r"[\x20-\x7e]{0,69}[\x21-\x7e]")


@dataclasses.dataclass(slots=True)
class FormFile:
    """What a form held in the field of one file.

    Args:
        count: how often the field was there.
        filename: the sender's name of the file, "" if none. Never used as a path.
        plain: whether the field was a plain one, without a file name or a content type.
        size: of the file, bytes.
    """

    count: int = 0
    filename: str = ""
    plain: bool = False
    size: int = 0


@dataclasses.dataclass(slots=True)
class Form:
    """What a form held: names and texts of the plain ``fields``, in their order; ``files`` by field."""

    files: dict[str, FormFile]
    fields: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class FormReader:
    """Reads one form, piece by piece.

    Args:
        boundary: see :func:`boundary_of`.
        files: what takes the bytes of a file as they come, by the name of its field.
        check: told the name of every field as soon as it is seen; raises for an unknown one.
        longest: bytes of a plain field; more is refused by ``too_long``.
        too_long: makes the refusal of a field of that name.
        more_parts: beyond those of every form, for fields that may be repeated.

    Raises InvalidArgument (``MALFORMED_FORM``) for what is no form, PayloadTooLarge over a limit.
    """

    def __init__(
        self,
        boundary: str,
        *,
        files: Mapping[str, Callable[[bytearray], object]],
        check: Callable[[str], None],
        longest: int,
        too_long: Callable[[str], ServingError],
        more_parts: int = 0,
    ) -> None:
        self.form = Form({name: FormFile() for name in files})
        self._delimiters = PlainDelimiters(boundary)
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER_BYTES,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS + more_parts,
        )
        self._files, self._check = files, check
        self._longest, self._too_long = longest, too_long
        self._most = MAX_PARTS + more_parts
        self._name = ""
        self._text = bytearray()
        self._begun = False

    def feed(self, piece: bytes) -> None:
        """Read on."""
        self._begun = self._begun or bool(piece)
        for start in range(0, len(piece), _STEP):
            for plain in self._delimiters.pieces(piece[start : start + _STEP]):
                for event in self._events(self._parser.parse(plain)):
                    self._take(event)

    def end(self) -> Form:
        """All of it has come."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise self._refusal(error) from None
        if not self._begun:
            raise _malformed("it is empty")
        return self.form

    def _events(
        self, events: Iterator[MultipartSegment | bytearray | None]
    ) -> Iterator[MultipartSegment | bytearray | None]:
        try:
            yield from events
        except MultipartError as error:
            raise self._refusal(error) from None

    def _take(self, event: MultipartSegment | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._open(event)
        elif event is not None:
            if self._name in self._files:
                self.form.files[self._name].size += len(event)
                self._files[self._name](event)
            else:
                self._text += event
                if len(self._text) > self._longest:
                    raise self._too_long(self._name)
        elif self._name not in self._files:
            self.form.fields.append((self._name, self._decoded()))
            self._text.clear()

    def _open(self, part: MultipartSegment) -> None:
        self._name = name = part.name
        if not name:
            raise _malformed("a part has no Content-Disposition: form-data with a name")
        if (part.header("Content-Transfer-Encoding") or "binary").lower() not in ("binary", "7bit", "8bit"):
            raise InvalidArgument(
                f"field '{name[:80]}' has a Content-Transfer-Encoding; forms carry bytes as they are",
                param=name[:80],
            )
        self._check(name)
        if name in self._files:
            file = self.form.files[name]
            file.count += 1
            file.filename = part.filename or ""
            file.plain = part.filename is None and not part.content_type

    def _decoded(self) -> str:
        try:
            return self._text.decode("utf-8")
        except UnicodeDecodeError:
            name = self._name[:80]
            raise InvalidArgument(f"field '{name}' is not valid UTF-8", param=name) from None

    def _refusal(self, error: MultipartError) -> ServingError:
        if isinstance(error, ParserLimitReached):
            if "count" in str(error) and "header" not in str(error):
                return PayloadTooLarge(f"the form has more than {self._most} parts", code="TOO_MANY_PARTS")
            return PayloadTooLarge(
                f"the headers of a part are more than {MAX_PART_HEADERS}, or longer than "
                f"{MAX_PART_HEADER_BYTES} bytes",
                code="PART_HEADERS_TOO_LARGE",
            )
        reason = str(error.args[0]) if error.args else "it cannot be read"
        if reason.startswith("Unexpected end"):
            reason = "the closing boundary is missing"
        return _malformed(f"{reason[:1].lower()}{reason[1:]}")


def boundary_of(content_type: str) -> str:
    """The boundary in a ``multipart/form-data`` content type. Raises InvalidArgument without a valid one."""
    given = {
        _ESCAPED.sub(r"\1", quoted) if quoted else plain.rstrip()
        for name, quoted, plain in _PARAMETER.findall(content_type)
        if name.lower() == "boundary"
    }
    if len(given) != 1 or _BOUNDARY.fullmatch(boundary := given.pop()) is None:
        raise InvalidArgument(
            "Content-Type multipart/form-data needs one boundary of 1 to 70 characters", param="Content-Type"
        )
    return boundary


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(f"the multipart form is malformed: {why}", code="MALFORMED_FORM")
