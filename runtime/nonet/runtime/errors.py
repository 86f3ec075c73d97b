"""The exceptions that callers can see, each with its HTTP status, gRPC status and whether a retry may help.

Every failure that may reach a caller is a :class:`ServingError`. The class fixes the HTTP status, the gRPC
status and whether the same request may succeed later; ``code`` names the exact cause for programs.

    ServingError
    ├── InvalidArgument        400  INVALID_ARGUMENT     a value is wrong; a retry will fail again
    │   └── UndecodableMedia   415  INVALID_ARGUMENT     the bytes are not an image / raw file we accept
    ├── Unauthenticated        401  UNAUTHENTICATED      no key, or a key we do not know
    ├── PermissionDenied       403  PERMISSION_DENIED    the key may not do this
    ├── NotFound               404  NOT_FOUND            unknown model, version, job
    ├── MethodNotAllowed       405  UNIMPLEMENTED        the route exists, the verb does not
    ├── RequestTimeout         408  DEADLINE_EXCEEDED    the client was too slow to send its request
    ├── Conflict               409  ABORTED              the state of the thing forbids it
    ├── PayloadTooLarge        413  RESOURCE_EXHAUSTED   over a size limit, before or after decompression
    ├── UnsupportedMediaType   415  INVALID_ARGUMENT     content type or content encoding we do not speak
    ├── Unprocessable          422  INVALID_ARGUMENT     well-formed, but against the schema
    ├── QuotaExceeded          429  RESOURCE_EXHAUSTED   the caller's quota; retry after a while
    ├── ClientClosed           499  CANCELLED            the caller left; never sent
    ├── Internal               500  INTERNAL             a defect of ours; message says nothing more
    ├── NotImplementedHere     501  UNIMPLEMENTED        needs an extra or hardware that is absent
    ├── ModelOutputInvalid     502  INTERNAL             the model answered NaN, Inf or a wrong shape
    ├── Unavailable            503  UNAVAILABLE          overloaded, draining, not ready, crashed backend
    │   └── DeadlineUnattainable 503 UNAVAILABLE         could not finish in time; refused before any work
    ├── DeadlineExceeded       504  DEADLINE_EXCEEDED    the caller's deadline has passed
    └── InsufficientStorage    507  RESOURCE_EXHAUSTED   disk or memory is full

Messages are written for the caller: they name the field, what was wrong and what is accepted. They never
hold a traceback, a path of the server or a secret.
"""

from __future__ import annotations

import enum


class GrpcStatus(enum.IntEnum):
    """gRPC status codes (numbers as in the gRPC specification), kept free of the grpc package."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """Root of every failure a caller may see.

    Args:
        message: one sentence for the caller: the field, what was wrong, what is accepted.
        param: the request field at fault, if there is one.
        code: upper-case name of the exact cause, e.g. ``IMAGE_TRUNCATED``; the class has a default.
        retry_after: seconds after which a retry makes sense; sent as ``Retry-After`` on 429 and 503.
    """

    http_status: int = 500
    grpc_status: GrpcStatus = GrpcStatus.INTERNAL
    kind: str = "server_error"  # the `type` of OpenAI's error shape
    default_code: str = "INTERNAL"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after = retry_after

    def told(self) -> None:
        """The caller knows it: forget where it came from. The frames of a traceback hold what was sent, and
        often the error itself, so all of it would be in memory until the garbage collector came by."""
        error: BaseException | None = self
        while error is not None and error.__traceback__ is not None:
            error.__traceback__ = None
            error = error.__context__


class InvalidArgument(ServingError):
    http_status = 400
    grpc_status = GrpcStatus.INVALID_ARGUMENT
    kind = "invalid_request_error"
    default_code = "INVALID_ARGUMENT"


class UndecodableMedia(InvalidArgument):
    http_status = 415
    default_code = "MEDIA_UNDECODABLE"


class Unauthenticated(ServingError):
    http_status = 401
    grpc_status = GrpcStatus.UNAUTHENTICATED
    kind = "authentication_error"
    default_code = "UNAUTHENTICATED"


class PermissionDenied(ServingError):
    http_status = 403
    grpc_status = GrpcStatus.PERMISSION_DENIED
    kind = "permission_error"
    default_code = "PERMISSION_DENIED"


class NotFound(ServingError):
    http_status = 404
    grpc_status = GrpcStatus.NOT_FOUND
    kind = "invalid_request_error"
    default_code = "NOT_FOUND"


class MethodNotAllowed(ServingError):
    allowed: tuple[str, ...] = ()  # the methods that are
    http_status = 405
    grpc_status = GrpcStatus.UNIMPLEMENTED
    kind = "invalid_request_error"
    default_code = "METHOD_NOT_ALLOWED"


class RequestTimeout(ServingError):
    http_status = 408
    grpc_status = GrpcStatus.DEADLINE_EXCEEDED
    kind = "invalid_request_error"
    default_code = "REQUEST_TIMEOUT"
    retryable = True


class Conflict(ServingError):
    http_status = 409
    grpc_status = GrpcStatus.ABORTED
    kind = "invalid_request_error"
    default_code = "CONFLICT"


class PayloadTooLarge(ServingError):
    http_status = 413
    grpc_status = GrpcStatus.RESOURCE_EXHAUSTED
    kind = "invalid_request_error"
    default_code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(ServingError):
    http_status = 415
    grpc_status = GrpcStatus.INVALID_ARGUMENT
    kind = "invalid_request_error"
    default_code = "UNSUPPORTED_MEDIA_TYPE"


class Unprocessable(ServingError):
    http_status = 422
    grpc_status = GrpcStatus.INVALID_ARGUMENT
    kind = "invalid_request_error"
    default_code = "UNPROCESSABLE"


class QuotaExceeded(ServingError):
    http_status = 429
    grpc_status = GrpcStatus.RESOURCE_EXHAUSTED
    kind = "rate_limit_error"
    default_code = "QUOTA_EXCEEDED"
    retryable = True


class ClientClosed(ServingError):
    http_status = 499
    grpc_status = GrpcStatus.CANCELLED
    kind = "invalid_request_error"
    default_code = "CLIENT_CLOSED"


class Internal(ServingError):
    pass


class NotImplementedHere(ServingError):
    http_status = 501
    grpc_status = GrpcStatus.UNIMPLEMENTED
    default_code = "NOT_IMPLEMENTED"


class ModelOutputInvalid(ServingError):
    http_status = 502
    default_code = "MODEL_OUTPUT_INVALID"


class Unavailable(ServingError):
    http_status = 503
    grpc_status = GrpcStatus.UNAVAILABLE
    kind = "overloaded_error"
    default_code = "UNAVAILABLE"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = 1.0,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after)


class DeadlineUnattainable(Unavailable):
    default_code = "DEADLINE_UNATTAINABLE"


class DeadlineExceeded(ServingError):
    http_status = 504
    grpc_status = GrpcStatus.DEADLINE_EXCEEDED
    kind = "timeout_error"
    default_code = "DEADLINE_EXCEEDED"
    retryable = True


class InsufficientStorage(ServingError):
    http_status = 507
    grpc_status = GrpcStatus.RESOURCE_EXHAUSTED
    default_code = "INSUFFICIENT_STORAGE"
    retryable = True


class ModelRefused(Exception):
    """A model or version must not be loaded; the reason is shown in the index, so it holds no path.

    Args:
        reason: one sentence for the operator, without paths outside the repository.
        permanent: whether trying again with the same files is pointless.
    """

    def __init__(self, reason: str, *, permanent: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
