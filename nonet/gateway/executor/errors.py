"""From a gRPC status of an upstream service back to the failure it stands for."""

from __future__ import annotations

import grpc
import grpc.aio

from nonet.runtime.errors import (
    ClientClosed,
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    PayloadTooLarge,
    PermissionDenied,
    ServingError,
    Unauthenticated,
    Unavailable,
)

ERROR_CODE = "nonet-error-code"
"""Trailing metadata in which a Nonet service names the exact cause."""

RETRY_AFTER = "retry-after"
"""Trailing metadata with the seconds after which a retry makes sense."""

_BY_STATUS: dict[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: PayloadTooLarge,
    grpc.StatusCode.CANCELLED: ClientClosed,
    grpc.StatusCode.UNIMPLEMENTED: NotImplementedHere,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: Internal,
}


def from_status(error: grpc.aio.AioRpcError) -> ServingError | None:
    """The failure the service reported; None if the service itself went away.

    A service that refuses (overloaded, draining) says UNAVAILABLE with :data:`ERROR_CODE`; a broken
    connection says UNAVAILABLE without it.
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
    kind = _BY_STATUS.get(status)
    if kind is None or (status is grpc.StatusCode.CANCELLED and named is None):
        return None
    return kind(message, code=named)


def _seconds(text: str | bytes | None) -> float:
    try:
        return float(text) if text is not None else 1.0
    except ValueError:
        return 1.0
