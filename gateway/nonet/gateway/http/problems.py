"""Failures as HTTP answers: the status, the headers and the body in the shape of the face that was called."""

from __future__ import annotations

import math
from collections.abc import Sequence

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from nonet.gateway.core.request_context import RawHeaders
from nonet.runtime.errors import (
    InvalidArgument,
    MethodNotAllowed,
    PayloadTooLarge,
    ServingError,
    Unauthenticated,
)

JSON = b"application/json"

_OVERLOAD = frozenset({"DEADLINE_UNATTAINABLE", "OVERLOADED", "QUEUE_FULL", "UPLOADS_OVER_BUDGET"})
"""Codes of refusals that say nothing of the server's health, only that it has enough to do."""


class HeadersTooLarge(PayloadTooLarge):
    """431: the request line and the headers are over a limit."""

    http_status = 431
    default_code = "HEADERS_TOO_LARGE"

    @classmethod
    def over(cls, limit: int) -> HeadersTooLarge:
        """They have more than ``limit`` bytes."""
        return cls(f"the request line and headers are larger than {limit} bytes")


class MalformedRequest(InvalidArgument):
    """400: this is not HTTP."""

    default_code = "MALFORMED_REQUEST"

    def __init__(self) -> None:
        super().__init__("this is not a valid HTTP/1.1 request")


def error_status(error: ServingError, overload_status: int = 503) -> int:
    """The status of an error; of a refusal because of too much work, ``overload_status``."""
    return overload_status if error.code in _OVERLOAD else error.http_status


def error_body(path: str, error: ServingError) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}`` under ``/v1``, ``{"error": "..."}`` elsewhere."""
    if path == "/v1" or path.startswith("/v1/"):
        return orjson.dumps(
            {
                "error": {
                    "message": _printable(error.message),
                    "type": error.kind,
                    "param": error.param,
                    "code": error.code,
                }
            }
        )
    return orjson.dumps({"error": _printable(error.message)})


def error_headers(error: ServingError) -> RawHeaders:
    """``Retry-After`` where a retry may help, ``WWW-Authenticate`` where a key is missing, ``Allow`` where
    the method is wrong."""
    headers: RawHeaders = []
    if error.http_status in (429, 503):
        # The header counts whole seconds; rounding up never asks for a retry that is too early.
        seconds = max(1, math.ceil(error.retry_after if error.retry_after is not None else 1.0))
        headers.append((b"retry-after", str(seconds).encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="nonet"'))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode("ascii")))
    return headers


def answer_bytes(
    path: str, error: ServingError, status: int, fields: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes, int]:
    """The whole answer as it goes on the wire, with ``fields`` and those of the error, and the bytes of its
    body."""
    body = error_body(path, error)
    lines = [b"%b: %b\r\n" % field for field in (*fields, *error_headers(error))]
    wire = b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        STATUS_LINE[status],
        b"".join(lines),
        JSON,
        len(body),
        body,
    )
    return wire, len(body)


def _printable(message: str) -> str:
    """The message without lone surrogates, which JSON cannot carry."""
    return message.encode("utf-8", "replace").decode() if not message.isascii() else message
