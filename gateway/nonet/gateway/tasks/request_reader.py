"""The body of a task's request over HTTP: a form, JSON, or the file alone, in memory or on its way to the
disk."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.types import Receive

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.tasks.fields import FieldReader
from nonet.gateway.tasks.forms import Form, FormFile, FormReader, boundary_of
from nonet.gateway.tasks.inline_files import decode_inline, looks_like_text
from nonet.runtime.errors import (
    InvalidArgument,
    PayloadTooLarge,
    ServingError,
    Unprocessable,
    UnsupportedMediaType,
)
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.task import FilePart, Task

FORM: Final = "multipart/form-data"
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
APPLIED: Final = (b"preference-applied", b"respond-async")
"""The header that says that the preference was followed."""

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_MOST_QUERY: Final = 64
_LONGEST_FIELD: Final = 16 * 1024
_LONGEST_INLINE: Final = 16 << 20
_INLINE_JSON: Final = 1 << 20
"""Bytes of JSON that are parsed on the event loop; more would hold up the other requests."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A request: the fields as sent; the file's bytes (empty for a task without a file, and for a file that
    went to the disk), or those of each file of a task with several; of a form, the sender's name of the file,
    "" if none."""

    values: dict[str, Any]
    file: bytes | tuple[bytes, ...] = b""
    filename: str = ""


class RequestReader:
    """Reads the requests of one task.

    Args:
        task: whose requests.
        fields: of the task.
        bodies: reads bodies within their limits.
    """

    def __init__(self, task: Task, fields: FieldReader, bodies: Bodies) -> None:
        self._task = task
        self._fields = fields
        self._bodies = bodies
        self._always = task.work is not None and task.work.always
        # A list of texts may come as one JSON array.
        self._longest = _LONGEST_FIELD * (1 + fields.list_texts // 8)

    def media_type(self, context: RequestContext) -> str:
        """The content type without parameters, lower case; "" if there is none.

        Raises UnsupportedMediaType for a type that cannot carry a request of the task.
        """
        name, _, _ = context.header(b"content-type").partition(";")
        name = name.strip().lower()
        file = self._task.file
        if self._task.files:
            return self._of_several(name)
        if name == JSON or (file is None and name == "") or (file is not None and _carries(file, name)):
            return name
        if file is None:
            raise UnsupportedMediaType(f"send application/json, not {name[:80]!r}", param="Content-Type")
        inside = f" with the {file.noun} in base64" if file.inline else ""
        raise UnsupportedMediaType(
            f"send multipart/form-data with a file part '{file.name}' (curl -F {file.name}=@{file.example}), "
            f"application/json{inside}, or the {file.noun} alone as {' or '.join(file.types)}; not "
            f"{name[:80]!r}",
            param="Content-Type",
        )

    def _of_several(self, name: str) -> str:
        """The media type of a request with several files. Raises UnsupportedMediaType."""
        if name in (JSON, FORM):
            return name
        files = self._task.files
        example = " ".join(f"-F {part.name}=@{part.example}" for part in files)
        named = " and ".join(f"'{part.name}'" for part in files)
        raise UnsupportedMediaType(
            f"send multipart/form-data with the file parts {named} (curl {example}), or application/json "
            f"with them in base64; not {name[:80]!r}",
            param="Content-Type",
        )

    def goes_to_disk(self, context: RequestContext) -> bool:
        """Whether the body is written to the disk as it arrives: that of a job is, unless it is JSON with
        the file in base64, which has to be read whole."""
        file = self._task.file
        if file is None or not (self._always or prefers_async(context)):
            return False
        kind, _, _ = context.header(b"content-type").partition(";")
        return not (file.inline and kind.strip().lower() == JSON)

    def query(self, query: bytes, *, job: bool) -> dict[str, Any]:
        """The fields that stand in the query, which count where the body has none of that name.

        Raises Unprocessable for an unknown field (``UNKNOWN_FIELD``) and for a repeated one.
        """
        if not query:
            return {}
        pairs = read_query(query, _MOST_QUERY)
        for name, _ in pairs:
            self._fields.check_name(name, job=job, beside=True)
        return self._fields.gather(pairs)

    async def read(self, context: RequestContext, receive: Receive, kind: str) -> Sent:
        """A request in memory. ``kind`` is of :meth:`media_type`.

        Raises what the body's limits raise, Unprocessable for a missing, unknown or repeated field,
        InvalidArgument for a malformed form or JSON and for an empty file.
        """
        file = self._task.file
        # The length that is declared is known before anything is kept; the parser lets only numbers pass.
        self._check_size(int(context.headers.get(b"content-length", b"0")))
        body = await self._bodies.read(context, receive)
        self._check_size(len(body))
        if kind == JSON or not self._task.parts:
            if len(body) > _INLINE_JSON:
                return await asyncio.to_thread(self._from_json, body)
            return self._from_json(body)
        if kind == FORM:
            return self._from_form(body, context.header(b"content-type"))
        assert file is not None
        return Sent({}, _filled(body, file, alone=True))

    async def spool(
        self,
        context: RequestContext,
        receive: Receive,
        kind: str,
        path: Path,
        limit: int,
    ) -> Sent:
        """A request whose file is written to the new file ``path`` while it comes.

        Args:
            limit: bytes of the body, as sent and decoded.

        Raises as :meth:`read`, and what a full disk raises.
        """
        file = self._task.file
        assert file is not None
        if not self.goes_to_disk(context):
            sent = self._from_json(await self._bodies.read(context, receive), job=True)
            assert isinstance(sent.file, bytes)  # a task with several files has no job
            with storage_errors():
                await asyncio.to_thread(path.write_bytes, sent.file)
            return Sent(sent.values)
        if kind != FORM:
            with storage_errors(), path.open("xb") as target:
                await self._bodies.spool(context, receive, path, limit, target.write)
            await asyncio.to_thread(self._check_file, path, kind)
            return Sent({})
        with storage_errors(), path.open("xb") as target:
            writes = {file.name: target.write}
            reader = self._form_reader(context.header(b"content-type"), writes, job=True)
            await self._bodies.spool(context, receive, path, limit, reader.feed)
            form = reader.end()
        values = self._form_values(form)
        spooled = form.files[file.name]
        await asyncio.to_thread(self._check_spooled, spooled, path)
        return Sent(values, filename=spooled.filename)

    # -- inside ---------------------------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        limit = self._task.max_bytes
        if limit and size > limit:
            raise PayloadTooLarge(
                f"the body is larger than {limit} bytes, which is the most of {self._task.path}",
                code="BODY_TOO_LARGE",
            )

    def _from_json(self, body: bytes, *, job: bool = False) -> Sent:
        values = self._fields.read_json(body, job=job)
        return self._sent(values, [self._inline(values, part) for part in self._task.parts])

    def _inline(self, values: dict[str, Any], part: FilePart) -> bytes:
        """The file in a field of a JSON object, which loses the field."""
        text = values.pop(part.name, None)
        if text is None and part.optional:
            return b""
        if not isinstance(text, str):
            raise Unprocessable(f"field '{part.name}' must be a text: base64 or a data: URL", param=part.name)
        return _filled(decode_inline(text, part.name), part)

    def _sent(self, values: dict[str, Any], files: list[bytes]) -> Sent:
        return Sent(values, tuple(files) if self._task.files else b"".join(files))

    def _from_form(self, body: bytes, content_type: str) -> Sent:
        pieces: dict[str, list[bytearray]] = {part.name: [] for part in self._task.parts}
        writes = {name: found.append for name, found in pieces.items()}
        reader = self._form_reader(content_type, writes, job=False)
        reader.feed(body)
        form = reader.end()
        values = self._form_values(form)
        files = []
        for part in self._task.parts:
            data = b"".join(pieces[part.name])
            if form.files[part.name].plain and looks_like_text(data):
                # curl -F image=... without the @: a data: URL or base64 in a plain field.
                data = decode_inline(data.decode("utf-8", "replace"), part.name)
            files.append(_filled(data, part) if form.files[part.name].count else b"")
        return self._sent(values, files)

    def _form_reader(
        self, content_type: str, writes: Mapping[str, Callable[[bytearray], object]], *, job: bool
    ) -> FormReader:
        return FormReader(
            boundary_of(content_type),
            files=writes,
            check=lambda name: self._fields.check_name(name, job=job),
            longest=self._longest,
            too_long=self._too_long,
            more_parts=self._fields.list_texts,
        )

    def _too_long(self, name: str) -> ServingError:
        message = f"field '{name[:80]}' is longer than {self._longest} bytes"
        # Where the work judges the fields, what a long text may mean is not known here: a bad value.
        return (InvalidArgument if self._always else Unprocessable)(message, param=name[:80])

    def _form_values(self, form: Form) -> dict[str, Any]:
        for part in self._task.parts:
            count = form.files[part.name].count
            if count != 1 and not (part.optional and count == 0):
                once = "in this field" if self._task.files else "per request"
                problem = (
                    f"repeated; send one {part.noun} {once}"
                    if count
                    else f"missing; send the {part.noun} as a file part"
                )
                raise Unprocessable(f"field '{part.name}' is {problem}", param=part.name)
        return self._fields.gather(form.fields)

    def _check_spooled(self, form: FormFile, path: Path) -> None:
        """The file of a form, on the disk: decoded if it is base64 in a plain field."""
        file = self._task.file
        assert file is not None
        with path.open("rb") as content:
            start = content.read(64)
        if file.inline and form.plain and looks_like_text(start):
            if form.size > _LONGEST_INLINE:
                raise PayloadTooLarge(
                    f"field '{file.name}' is longer than the {_LONGEST_INLINE} characters that are taken "
                    f"in base64; send the {file.noun} as a file part",
                    param=file.name,
                )
            data = decode_inline(path.read_bytes().decode("utf-8", "replace"), file.name)
            with storage_errors():
                path.write_bytes(_filled(data, file))
        _filled(start, file)

    def _check_file(self, path: Path, kind: str) -> None:
        """A file that came alone, on the disk."""
        file = self._task.file
        assert file is not None
        with path.open("rb") as content:
            start = _filled(content.read(4096), file, alone=True)
        # What says that it is JSON and is neither object, list nor gzip is none.
        if kind == JSON and not start.startswith(b"\x1f\x8b") and start.lstrip()[:1] not in (b"{", b"["):
            raise InvalidArgument("the body is not a JSON object", code="MALFORMED_JSON")


def prefers_async(context: RequestContext) -> bool:
    """Whether the caller would rather have a job than wait for the answer (``Prefer``, RFC 7240).

    A preference is no demand: what is unknown, or cannot be read, is as if it had not been sent.
    """
    text = _QUOTED.sub("", context.header(b"prefer"))  # no quoted text says anything about this preference
    for preference in text.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "respond-async" and not value.strip():
            return True
    return False


def read_query(query: bytes, most: int) -> list[tuple[str, str]]:
    """Names and values in their order. Raises Unprocessable for more than ``most``."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=most)
    except ValueError:
        raise Unprocessable(f"the query has more than {most} fields", code="TOO_MANY_FIELDS") from None


def _carries(file: FilePart, name: str) -> bool:
    """Whether a body of this media type can hold the file."""
    family = name.partition("/")[0] + "/*"
    return name in ("", FORM, OCTETS) or name in file.types or family in file.types


def _filled(data: bytes, file: FilePart, *, alone: bool = False) -> bytes:
    """``data``, which must not be empty."""
    if data:
        return data
    what = "the body" if alone and file.empty_code is None else f"field '{file.name}'"
    article = "an" if file.noun[0] in "aeiou" else "a"
    raise InvalidArgument(
        f"{what} is empty; send {article} {file.noun}", param=file.name, code=file.empty_code
    )
