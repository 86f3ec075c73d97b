"""Maps the gRPC status of an upstream service to the :class:`ServingError` it stands for."""

from __future__ import annotations

import grpc
import grpc.aio

from nonet.runtime.errors import (
    Conflict,
    DeadlineExceeded,
    InsufficientStorage,
    Internal,
    InvalidArgument,
    ModelOutputInvalid,
    NotFound,
    NotImplementedHere,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExceeded,
    ServingError,
    Unauthenticated,
    Unavailable,
)

ERROR_CODE = "nonet-error-code"
"""Trailing metadata in which a Nonet service names the exact cause."""

RETRY_AFTER = "retry-after"
"""Trailing metadata with the seconds after which a retry makes sense."""

_KINDS: tuple[type[ServingError], ...] = (
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    Conflict,
    PayloadTooLarge,
    NotImplementedHere,
    DeadlineExceeded,
    Internal,
)
_BY_STATUS = {grpc.StatusCode[kind.grpc_status.name]: kind for kind in _KINDS}
_BY_CODE: dict[str, type[ServingError]] = {
    kind.default_code: kind for kind in (QuotaExceeded, InsufficientStorage, ModelOutputInvalid)
}


def from_status(error: grpc.aio.AioRpcError) -> ServingError | None:
    """The failure the service reported; None if the service itself went away.

    A service that refuses (overloaded, draining) says UNAVAILABLE with :data:`ERROR_CODE`; a broken
    connection says UNAVAILABLE without it. A status the failure model has no place for is a failure of this
    request alone.
    """
    trailing = dict(error.trailing_metadata() or ())
    code = trailing.get(ERROR_CODE)
    status = error.code()
    message = error.details() or "the service gave no reason"
    named = code if isinstance(code, str) else None
    if status is grpc.StatusCode.UNAVAILABLE:
        if named is None:
            return None
        retry = trailing.get(RETRY_AFTER)
        return Unavailable(message, code=named, retry_after=_seconds(retry))
    kind = _BY_CODE.get(named or "") or _BY_STATUS.get(status)
    if kind is None:
        return Internal("the service behind this model failed on this request", code="BACKEND_FAILED")
    return kind(message, code=named)


def _seconds(text: str | bytes | None) -> float:
    try:
        return float(text) if text is not None else 1.0
    except ValueError:
        return 1.0
