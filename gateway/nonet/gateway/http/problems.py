"""Failures as HTTP answers: the status, the headers and the body in the shape of the face that was called."""

from __future__ import annotations

import math

import orjson

from nonet.gateway.core.request_context import RawHeaders
from nonet.runtime.errors import MethodNotAllowed, ServingError, Unauthenticated

JSON = b"application/json"


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


def _printable(message: str) -> str:
    """The message without lone surrogates, which JSON cannot carry."""
    return message.encode("utf-8", "replace").decode() if not message.isascii() else message
