"""The ways to hand over the scans of a fit: JSON, a form with a file, or the file alone; beside each of them
other fields may stand in the query."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.query import read_query
from nonet.gateway.tasks.floors import Upload
from nonet.gateway.tasks.multipart import boundary_of, locate_parts
from nonet.runtime.errors import InvalidArgument, Unprocessable, UnsupportedMediaType

__all__ = ["FIELDS", "media_type", "query_fields", "read_upload_form"]

FIELDS: Final = ("building", "labelled", "floors", "preset", "seed", "webhook")
_LONGEST_FIELD: Final = 16 * 1024
_PEEK: Final = 4096
_GZIP: Final = b"\x1f\x8b"
_FORM: Final = "multipart/form-data"
_JSON: Final = "application/json"
_FILES: Final = (
    "",
    "text/csv",
    "application/csv",
    "application/gzip",
    "application/octet-stream",
    "application/vnd.apache.parquet",
    "application/x-parquet",
)


def media_type(exchange: Exchange) -> str:
    """The content type without parameters, lower case; "" if there is none.

    Raises UnsupportedMediaType for a type that cannot carry scans here.
    """
    name, _, _ = exchange.header(b"content-type").partition(";")
    name = name.strip().lower()
    if name in (_FORM, _JSON, *_FILES):
        return name
    raise UnsupportedMediaType(
        "send application/json, multipart/form-data with a file part 'scans' (curl -F scans=@scans.csv), or "
        f"the file alone as text/csv or application/vnd.apache.parquet; not {name[:80]!r}",
        param="Content-Type",
    )


def query_fields(query: bytes) -> Mapping[str, Any]:
    """The fields that stand in the query. Raises Unprocessable for an unknown or repeated one."""
    pairs = read_query(query, 64)
    for name, _ in pairs:
        if name not in FIELDS:
            raise Unprocessable(
                f"unknown field {name[:80]!r} in the query; the fields are {', '.join(FIELDS)}",
                param=name[:80],
                code="UNKNOWN_FIELD",
            )
    return _gathered(pairs)


def read_upload_form(kind: str, content_type: str, query: Mapping[str, Any], body: Path) -> Upload:
    """Where the scans stand in a body on the disk, and the fields beside them. Reads the whole body: run it
    in a thread.

    Args:
        kind: of :func:`media_type`.
        content_type: the whole header, which holds a form's boundary.
        query: the fields of the query.
        body: file with the decoded body.

    Raises Unprocessable for a missing, unknown or repeated field, or one in the query and the form,
    InvalidArgument for an empty body, a malformed form, or JSON that is none.
    """
    if body.stat().st_size == 0:
        raise InvalidArgument("the body is empty; send scans", param="scans")
    if kind == _FORM:
        return _from_form(body, content_type, query)
    if kind == _JSON:
        _check_json(body)
    return Upload(body, query)


def _check_json(body: Path) -> None:
    """What says that it is JSON and is neither object, list nor gzip is no table either."""
    with body.open("rb") as file:
        start = file.read(_PEEK)
    if not start.startswith(_GZIP) and start.lstrip()[:1] not in (b"{", b"["):
        raise InvalidArgument("the body is not a JSON object", code="MALFORMED_JSON")


def _from_form(body: Path, content_type: str, query: Mapping[str, Any]) -> Upload:
    with body.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        places = locate_parts(content, boundary_of(content_type))
        pairs: list[tuple[str, str]] = []
        files = []
        for place in places:
            if place.name == "scans":
                files.append(place)
            elif place.name not in FIELDS:
                raise Unprocessable(
                    f"unknown field {place.name[:80]!r}; the fields are scans, {', '.join(FIELDS)}",
                    param=place.name[:80],
                    code="UNKNOWN_FIELD",
                )
            elif place.end - place.start > _LONGEST_FIELD:
                raise InvalidArgument(
                    f"field '{place.name}' is longer than {_LONGEST_FIELD} bytes", param=place.name
                )
            else:
                pairs.append((place.name, _text(place.name, content[place.start : place.end])))
        if len(files) != 1:
            problem = (
                "repeated; send one file" if files else "missing; send a file part (CSV, Parquet or JSON)"
            )
            raise Unprocessable(f"field 'scans' is {problem}", param="scans")
        fields = _gathered(pairs)
        for name in fields.keys() & query.keys():
            raise Unprocessable(
                f"field '{name}' is given in the query and in the form; give it once", param=name
            )
        return Upload(body, {**query, **fields}, files[0].start, files[0].end - files[0].start)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"field '{name}' is not valid UTF-8", param=name) from None


def _gathered(pairs: list[tuple[str, str]]) -> Mapping[str, Any]:
    """Fields by name; ``floors`` may be repeated and is then a list of names."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = value
        elif name == "floors":
            before = fields[name]
            fields[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            raise Unprocessable(f"field '{name}' is repeated", param=name)
    return fields
