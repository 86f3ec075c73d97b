"""The ways to hand over a raw capture: a form, JSON, or the bytes alone with the rest in the query."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

from nonet.gateway.exchange import Exchange
from nonet.gateway.rest.classify_form import decode_image
from nonet.gateway.rest.multipart import boundary_of, parse_form
from nonet.gateway.rest.query import read_query
from nonet.gateway.rest.raw_develop_schemas import FIELDS
from nonet.runtime.errors import InvalidArgument, Unprocessable, UnsupportedMediaType
from nonet.runtime.requests import Parameter

_MAX_MODEL_NAME: Final = 256
_MAX_VALUE: Final = 400
_MAX_LIST: Final = 16
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
    if name in ("", "multipart/form-data", "application/octet-stream", "application/json") or name.startswith(
        "image/"
    ):
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
    if kind == "multipart/form-data":
        return _from_form(body, content_type)
    if kind == "application/json":
        return _from_json(body)
    pairs = read_query(query, 32)
    known = [(name, value) for name, value in pairs if name in FIELDS and name != "raw"]
    return _checked(body, _unique(known))


def _from_form(body: bytes, content_type: str) -> DevelopInput:
    parts = parse_form(body, boundary_of(content_type))
    for part in parts:
        if part.name not in FIELDS:
            raise _unknown_field(part.name)
    captures = [part for part in parts if part.name == "raw"]
    if len(captures) != 1:
        problem = "repeated; send one capture per request" if captures else "missing; send it as a file part"
        raise Unprocessable(f"field 'raw' is {problem}", param="raw")
    fields = _unique([(part.name, part.text()) for part in parts if part.name != "raw"])
    capture = captures[0]
    if capture.filename is None and not capture.content_type and _is_text(capture.data):
        # curl -F raw=... without the @: a data: URL or base64 in a plain field.
        return _checked(decode_image(capture.text(), "raw"), fields)
    return _checked(capture.data, fields)


def _from_json(body: bytes) -> DevelopInput:
    if not body.strip():
        raise InvalidArgument("the body is empty; send a JSON object with 'raw'")
    if sum(body.count(mark) for mark in (b'"', b",", b"[", b"{")) > _MAX_STRUCTURE:
        raise Unprocessable(f"the body must be an object with the fields {', '.join(FIELDS)} and no more")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is not valid JSON: {error.msg}", code="MALFORMED_JSON") from None
    if not isinstance(value, dict):
        raise Unprocessable("the body must be a JSON object")
    for name in value:
        if name not in FIELDS:
            raise _unknown_field(name)
    raw = value.pop("raw", None)
    if not isinstance(raw, str):
        raise Unprocessable("field 'raw' must be a text: base64 or a data: URL", param="raw")
    return _checked(decode_image(raw, "raw"), value)


def _checked(raw: bytes, fields: Mapping[str, Any]) -> DevelopInput:
    if not raw:
        raise InvalidArgument("field 'raw' is empty; send a capture", param="raw", code="RAW_EMPTY")
    rest = {name: value for name, value in fields.items() if value is not None}
    model = rest.pop("model", "auto")
    if not isinstance(model, str):
        raise Unprocessable("field 'model' must be a text", param="model")
    if not 1 <= len(model) <= _MAX_MODEL_NAME:
        raise InvalidArgument(f"field 'model' must have 1 to {_MAX_MODEL_NAME} characters", param="model")
    return DevelopInput(raw, model, {name: _parameter(name, value) for name, value in rest.items()})


def _parameter(name: str, value: object) -> Parameter:
    """A field as the service takes it: a list of numbers becomes a text with commas."""
    if isinstance(value, list) and 0 < len(value) <= _MAX_LIST and all(map(_is_number, value)):
        return ",".join(map(repr, value))
    if isinstance(value, bool) or _is_number(value):
        assert isinstance(value, bool | int | float)
        return value
    if isinstance(value, str) and len(value) <= _MAX_VALUE:
        return value
    raise Unprocessable(
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


def _unknown_field(name: str) -> Unprocessable:
    return Unprocessable(
        f"unknown field {name[:80]!r}; the fields are {', '.join(FIELDS)}",
        param=name[:80],
        code="UNKNOWN_FIELD",
    )
