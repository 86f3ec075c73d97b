"""The ways to hand over a raw capture: a form, JSON, or the bytes alone with the rest in the query."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import mmap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.query import read_query
from nonet.gateway.tasks.classify_form import decode_image
from nonet.gateway.tasks.multipart import Part, PartPlace, boundary_of, locate_parts
from nonet.gateway.tasks.raw_captures import CaptureUpload
from nonet.gateway.tasks.raw_develop_schemas import FIELDS, SUBMIT_FIELDS
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, Unprocessable, UnsupportedMediaType
from nonet.runtime.requests import Parameter
from nonet.runtime.storage_errors import storage_errors

JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_MAX_MODEL_NAME: Final = 256
_MAX_VALUE: Final = 400
_MAX_LIST: Final = 16
_MAX_FIELD: Final = 16 * 1024
_MAX_INLINE: Final = 16 << 20
# A valid JSON body holds a dozen flat fields; one with more structure than this is not worth parsing.
_MAX_STRUCTURE: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class DevelopInput:
    """A capture, the name of a model, and the parameters of the service as the caller gave them."""

    raw: bytes
    model: str
    parameters: Mapping[str, Parameter]


def media_type(exchange: Exchange) -> str:
    """The content type without parameters, lower case; "" if there is none.

    Raises UnsupportedMediaType for a type that cannot carry a capture here.
    """
    name, _, _ = exchange.header(b"content-type").partition(";")
    name = name.strip().lower()
    if name in ("", _FORM, "application/octet-stream", JSON) or name.startswith("image/"):
        return name
    raise UnsupportedMediaType(
        "send multipart/form-data with a file part 'raw' (curl -F raw=@capture.dng), application/json "
        "with the capture in base64, or the bytes alone as application/octet-stream or image/*; not "
        f"{name[:80]!r}",
        param="Content-Type",
    )


def read_input(kind: str, content_type: str, query: bytes, body: bytes) -> DevelopInput:
    """What the caller asks for.

    Args:
        kind: of :func:`media_type`.
        content_type: the whole header, which holds a form's boundary.
        query: the raw query string: all other fields of a body that is the capture alone.
        body: decoded body.

    Raises Unprocessable for a missing, unknown or ill-typed field, InvalidArgument for an empty capture.
    """
    if kind == _FORM:
        return _from_form(body, content_type)
    if kind == JSON:
        return _asked(*_from_json(body, FIELDS))
    return _asked(body, _from_query(query, FIELDS))


def read_submit(kind: str, content_type: str, query: bytes, body: Path) -> CaptureUpload:
    """What the caller of a job asks for in a body on the disk that is not JSON. Blocks. Raises as
    :func:`read_input`, and PayloadTooLarge for a capture in base64 that takes too much memory."""
    if kind != _FORM:
        return _upload(body, _from_query(query, SUBMIT_FIELDS))
    with _mapped(body) as content:
        capture, fields = _located(content, content_type, SUBMIT_FIELDS, _MAX_FIELD)
        if not _is_inline(capture, content[capture.start : capture.start + 64]):
            length = capture.end - capture.start
            return _upload(body, fields, capture.filename or "", capture.start, length)
        if capture.end - capture.start > _MAX_INLINE:
            raise PayloadTooLarge(
                f"field 'raw' is longer than the {_MAX_INLINE} characters that are taken in base64; send the "
                "capture as a file part",
                param="raw",
            )
        raw = decode_image(_part(content, capture).text(), "raw")
    return _upload(_written(body, raw), fields)


def read_json_submit(body: bytes, path: Path) -> CaptureUpload:
    """What the caller of a job asks for in JSON; the capture goes to ``path``. Blocks. Raises as
    :func:`read_input`."""
    raw, fields = _from_json(body, SUBMIT_FIELDS)
    return _upload(_written(path, raw), fields)


@contextlib.contextmanager
def _mapped(body: Path) -> Iterator[bytes | mmap.mmap]:
    """The content of a file, which may be empty."""
    if body.stat().st_size == 0:
        yield b""
        return
    with body.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _written(path: Path, raw: bytes) -> Path:
    with storage_errors():
        path.write_bytes(raw)
    return path


def _upload(
    body: Path, fields: Mapping[str, Any], name: str = "", offset: int = 0, length: int | None = None
) -> CaptureUpload:
    rest = dict(fields)
    webhook = rest.pop("webhook", None)
    if webhook is not None and not isinstance(webhook, str):
        raise Unprocessable("field 'webhook' must be a text", param="webhook")
    size = body.stat().st_size if length is None else length
    model, parameters = _choices(size, rest)
    return CaptureUpload(body, parameters, model, name, webhook or "", offset, length)


def _from_query(query: bytes, known: Collection[str]) -> dict[str, str]:
    pairs = read_query(query, 32)
    return _unique([(name, value) for name, value in pairs if name in known and name != "raw"])


def _from_form(body: bytes, content_type: str) -> DevelopInput:
    capture, fields = _located(body, content_type, FIELDS, len(body))
    part = _part(body, capture)
    if _is_inline(capture, part.data):
        return _asked(decode_image(part.text(), "raw"), fields)
    return _asked(part.data, fields)


def _located(
    body: bytes | mmap.mmap, content_type: str, known: Collection[str], longest: int
) -> tuple[PartPlace, dict[str, str]]:
    """Where the capture of a form stands, and the other fields, none of them longer than ``longest``."""
    places = locate_parts(body, boundary_of(content_type))
    for place in places:
        if place.name not in known:
            raise _unknown_field(place.name, known)
    captures = [place for place in places if place.name == "raw"]
    if len(captures) != 1:
        problem = "repeated; send one capture per request" if captures else "missing; send it as a file part"
        raise Unprocessable(f"field 'raw' is {problem}", param="raw")
    texts = [place for place in places if place.name != "raw"]
    for place in texts:
        if place.end - place.start > longest:
            raise _no_parameter(place.name)
    return captures[0], _unique([(place.name, _part(body, place).text()) for place in texts])


def _part(body: bytes | mmap.mmap, place: PartPlace) -> Part:
    return Part(place.name, place.filename, place.content_type, body[place.start : place.end])


def _is_inline(capture: PartPlace, data: bytes) -> bool:
    """Whether the capture is a ``data:`` URL or base64 in a plain field: curl -F raw=... without the @."""
    return capture.filename is None and not capture.content_type and _is_text(data)


def _from_json(body: bytes, known: Collection[str]) -> tuple[bytes, dict[str, Any]]:
    """The capture and the other fields."""
    if not body.strip():
        raise InvalidArgument("the body is empty; send a JSON object with 'raw'")
    if sum(body.count(mark) for mark in (b'"', b",", b"[", b"{")) > _MAX_STRUCTURE:
        raise Unprocessable(f"the body must be an object with the fields {', '.join(known)} and no more")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is not valid JSON: {error.msg}", code="MALFORMED_JSON") from None
    if not isinstance(value, dict):
        raise Unprocessable("the body must be a JSON object")
    for name in value:
        if name not in known:
            raise _unknown_field(name, known)
    raw = value.pop("raw", None)
    if not isinstance(raw, str):
        raise Unprocessable("field 'raw' must be a text: base64 or a data: URL", param="raw")
    return decode_image(raw, "raw"), value


def _asked(raw: bytes, fields: Mapping[str, Any]) -> DevelopInput:
    return DevelopInput(raw, *_choices(len(raw), fields))


def _choices(size: int, fields: Mapping[str, Any]) -> tuple[str, dict[str, Parameter]]:
    """The model and the parameters that go with a capture of ``size`` bytes."""
    if not size:
        raise InvalidArgument("field 'raw' is empty; send a capture", param="raw", code="RAW_EMPTY")
    rest = {name: value for name, value in fields.items() if value is not None}
    model = rest.pop("model", "auto")
    if not isinstance(model, str):
        raise Unprocessable("field 'model' must be a text", param="model")
    if not 1 <= len(model) <= _MAX_MODEL_NAME:
        raise InvalidArgument(f"field 'model' must have 1 to {_MAX_MODEL_NAME} characters", param="model")
    return model, {name: _parameter(name, value) for name, value in rest.items()}


def _parameter(name: str, value: object) -> Parameter:
    """A field as the service takes it: a list of numbers becomes a text with commas."""
    if isinstance(value, list) and 0 < len(value) <= _MAX_LIST and all(map(_is_number, value)):
        return ",".join(map(repr, value))
    if isinstance(value, bool) or _is_number(value):
        assert isinstance(value, bool | int | float)
        return value
    if isinstance(value, str) and len(value) <= _MAX_VALUE:
        return value
    raise _no_parameter(name)


def _no_parameter(name: str) -> Unprocessable:
    return Unprocessable(
        f"field '{name}' must be a text of at most {_MAX_VALUE} characters, a number, true, false, or a list "
        "of numbers",
        param=name,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(data: bytes) -> bool:
    return data[:64].isascii() and not any(byte < 0x20 and byte not in b"\r\n\t" for byte in data[:64])


def _unique(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise Unprocessable(f"field '{name}' is repeated", param=name)
        fields[name] = value
    return fields


def _unknown_field(name: str, known: Collection[str]) -> Unprocessable:
    return Unprocessable(
        f"unknown field {name[:80]!r}; the fields are {', '.join(known)}",
        param=name[:80],
        code="UNKNOWN_FIELD",
    )
