"""The ways to hand over an image: a form, JSON, or the bytes alone. All give the same three values."""

from __future__ import annotations

import binascii
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import orjson

from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.query import read_query
from nonet.gateway.tasks.classification import DEFAULT_TOP_K, MAX_TOP_K
from nonet.gateway.tasks.multipart import Part, boundary_of, parse_form
from nonet.runtime.errors import InvalidArgument, Unprocessable, UnsupportedMediaType

FIELDS = ("image", "model", "top_k")

_MAX_MODEL_NAME = 256
# A valid JSON body holds three fields; one with more structure than this is not worth parsing.
_MAX_STRUCTURE = 64
_DATA_URL = re.compile(r"data:([A-Za-z0-9.+/-]*)((?:;[A-Za-z0-9.+=_-]*)*),", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class ClassifyInput:
    """An encoded image, the name of a model, and how many classes to return."""

    image: bytes
    model: str = "auto"
    top_k: int = DEFAULT_TOP_K


def media_type(exchange: Exchange) -> str:
    """The content type without parameters, lower case; "" if there is none.

    Raises UnsupportedMediaType for a type that cannot carry an image here.
    """
    name, _, _ = exchange.header(b"content-type").partition(";")
    name = name.strip().lower()
    if (
        name in ("", "multipart/form-data", "application/octet-stream")
        or name == "application/json"
        or name.startswith("image/")
    ):
        return name
    raise UnsupportedMediaType(
        "send multipart/form-data with a file part 'image' (curl -F image=@photo.jpg), application/json with "
        f"the image in base64, or the bytes alone as image/*; not {name[:80]!r}",
        param="Content-Type",
    )


def read_input(kind: str, content_type: str, query: bytes, body: bytes) -> ClassifyInput:
    """What the caller asks for.

    Args:
        kind: of :func:`media_type`.
        content_type: the whole header, which holds a form's boundary.
        query: the raw query string: model and top_k of a body that is the image alone.
        body: decoded body.

    Raises Unprocessable for a missing, unknown or ill-typed field, InvalidArgument for a bad value.
    """
    if kind == "multipart/form-data":
        return _from_form(parse_form(body, boundary_of(content_type)))
    if kind == "application/json":
        return _from_json(body)
    if not body:
        raise InvalidArgument("the body is empty; send an image", param="image")
    pairs = read_query(query, 16)
    return _from_fields(body, _unique([(name, value) for name, value in pairs if name in ("model", "top_k")]))


def _from_form(parts: list[Part]) -> ClassifyInput:
    for part in parts:
        if part.name not in FIELDS:
            raise _unknown_field(part.name)
    images = [part for part in parts if part.name == "image"]
    if not images:
        raise Unprocessable("field 'image' is missing; send the image as a file part", param="image")
    if len(images) > 1:
        raise Unprocessable("field 'image' is repeated; send one image per request", param="image")
    fields = _unique([(part.name, part.text()) for part in parts if part.name != "image"])
    image = images[0]
    if image.filename is None and not image.content_type and _looks_like_text(image.data):
        # curl -F image=... without the @: a data: URL or base64 in a plain field.
        return _from_fields(decode_image(image.text()), fields)
    return _from_fields(image.data, fields)


def _from_json(body: bytes) -> ClassifyInput:
    if not body.strip():
        raise InvalidArgument("the body is empty; send a JSON object with 'image'")
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
    image = value.pop("image", None)
    if not isinstance(image, str):
        raise Unprocessable("field 'image' must be a text: base64 or a data: URL", param="image")
    return _from_fields(decode_image(image), value)


def _from_fields(image: bytes, fields: Mapping[str, Any]) -> ClassifyInput:
    if not image:
        raise InvalidArgument("field 'image' is empty", param="image")
    model = fields.get("model", "auto")
    if not isinstance(model, str):
        raise Unprocessable("field 'model' must be a text", param="model")
    if not 1 <= len(model) <= _MAX_MODEL_NAME:
        raise InvalidArgument(f"field 'model' must have 1 to {_MAX_MODEL_NAME} characters", param="model")
    return ClassifyInput(image, model, _top_k(fields.get("top_k", DEFAULT_TOP_K)))


def _top_k(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,9}", value.strip(), re.ASCII):
        value = int(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 5.0 is an integer there
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unprocessable(f"field 'top_k' must be an integer, got {value!r:.40}", param="top_k")
    if not 1 <= value <= MAX_TOP_K:
        raise InvalidArgument(
            f"field 'top_k' must be from 1 to {MAX_TOP_K}, got {value!r:.40}", param="top_k"
        )
    return value


def decode_image(text: str, field: str = "image") -> bytes:
    """The bytes of a base64 text or a ``data:`` URL in a field.

    Raises InvalidArgument for anything else; a URL to fetch from is refused, whatever its scheme.
    """
    if text[:5].lower() == "data:":
        match = _DATA_URL.match("data:" + text[5:])
        if match is None or not match[2].lower().endswith(";base64"):
            raise InvalidArgument(
                f"field '{field}' is a data: URL that is not of the form data:<type>;base64,<data>",
                param=field,
            )
        text = text[match.end() :]
    elif _URL.match(text):
        raise InvalidArgument(
            f"field '{field}' is a URL, and nothing is fetched from URLs; send the file itself in base64",
            param=field,
            code=f"{field.upper()}_URL_NOT_ALLOWED",
        )
    try:
        data = text.encode("ascii")
        if b"\n" in data or b" " in data:
            data = b"".join(data.split())
        return binascii.a2b_base64(data, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidArgument(
            f"field '{field}' is not valid base64 (nor a data: URL)",
            param=field,
            code=f"{field.upper()}_NOT_BASE64",
        ) from None


def _looks_like_text(data: bytes) -> bool:
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
