"""What all gRPC handlers share: reading metadata and messages, errors as statuses, metrics of each call.

Handlers work on messages and raise :class:`~nonet.runtime.errors.ServingError`; everything between them and
the wire happens here. Bytes come in and go out raw, so that a message that does not parse is the caller's
INVALID_ARGUMENT and not a server error, and no exception's text can ever reach a caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from nonet.gateway.core.call import Call
from nonet.gateway.core.call_headers import CallReader, answer_headers
from nonet.gateway.core.explaining import compact
from nonet.gateway.core.request_context import RequestContext, request_id
from nonet.gateway.core.request_trace import Attributes, current_trace
from nonet.gateway.core.upload_budget import Hold, UploadBudget
from nonet.gateway.executor.errors import ERROR_CODE, RETRY_AFTER
from nonet.gateway.tracing import Tracer
from nonet.runtime.clock import Clock
from nonet.runtime.errors import Internal, InvalidArgument, RequestTimeout, ServingError
from nonet.runtime.oip.messages import methods
from nonet.runtime.requests import InferResponse

logger = logging.getLogger(__name__)

ERROR_PARAM = "nonet-error-param"
"""Trailing metadata that names the field at fault."""

Observe = Callable[[str, str, float, str], None]
"""Called once per RPC: route, status name, seconds, model ("" if none)."""

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
# Statuses that are a failure of the server to OpenTelemetry.
_SERVERS_FAULT = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

Context: TypeAlias = grpc.aio.ServicerContext
Handler = Callable[[Any, "Rpc"], Awaitable[Any]]
Admit = Callable[["Rpc"], AbstractContextManager[None]]


class Rpc:
    """What a handler knows of the call beside its message.

    Attributes:
        context: gRPC's own view of the call.
        request_context: request id, trace id and metadata, in the form the HTTP face uses too.
        model: name of the model that answered; enters the metrics.
    """

    __slots__ = ("_call", "_face", "context", "model", "request_context")

    def __init__(self, face: RpcFace, context: Context) -> None:
        self._face = face
        self._call: Call | None = None
        self.context = context
        self.model = ""
        self.request_context = RequestContext(time.monotonic())
        self.request_context.begin(
            [
                (
                    key.encode("latin-1"),
                    value if isinstance(value, bytes) else value.encode("latin-1", "replace"),
                )
                for key, value in context.invocation_metadata() or ()
            ]
        )
        request_id.set(self.request_context.request_id)
        if face.tracer is not None:
            face.tracer.begin(self.request_context)
        current_trace.set(self.request_context.trace)

    def read(self, arrived: float | None = None) -> Call:
        """Who calls, and how the request is to be handled: the metadata that the HTTP face calls headers, and
        the deadline of gRPC itself, whichever ends first. Read once, unless ``arrived`` is given, which is
        for a message of a stream: see :meth:`CallReader.read`.

        Raises as :meth:`CallReader.read`.
        """
        if arrived is None and self._call is not None:
            return self._call
        call = self._face.reader.read(self.request_context, arrived)
        remaining = self.context.time_remaining()
        if remaining is not None and math.isfinite(remaining):
            deadline = self._face.clock.now() + remaining
            if call.deadline is None or deadline < call.deadline:
                call = dataclasses.replace(call, deadline=deadline)
        if arrived is None:
            self._call = call
        return call

    def authenticate(self) -> str:
        """The tenant. Raises Unauthenticated or QuotaExceeded."""
        return self._face.reader.authenticate(self.request_context)

    def identify(self) -> str:
        """The tenant, without counting against its quota. Raises Unauthenticated."""
        return self._face.reader.identify(self.request_context)

    def describe_answer(
        self,
        response: InferResponse,
        decode: float,
        encode: float,
        placement: dict[str, Any] | None = None,
    ) -> None:
        """Say in the trailing metadata how the request was handled, under the names of the HTTP headers, and
        why it was placed there, if that was asked."""
        self.context.set_trailing_metadata(
            (
                ("x-request-id", self.request_context.request_id),
                *(
                    (name.decode(), value.decode())
                    for name, value in answer_headers(response, decode, encode)
                ),
                *([] if placement is None else [("x-placement", compact(placement).decode("ascii"))]),
            )
        )

    def explain(self, placement: dict[str, Any] | None) -> None:
        """Say in the trailing metadata of a stream why it was placed where it was, if that was asked."""
        if placement is not None:
            self.context.set_trailing_metadata(
                (
                    ("x-request-id", self.request_context.request_id),
                    ("x-placement", compact(placement).decode("ascii")),
                )
            )

    async def refuse(self, error: ServingError) -> None:
        """End the call with the error's status; the exact cause goes into the trailing metadata."""
        trailing = [("x-request-id", self.request_context.request_id), (ERROR_CODE, printable(error.code))]
        if error.param:
            trailing.append((ERROR_PARAM, printable(error.param)))
        if error.retry_after is not None:
            trailing.append((RETRY_AFTER, f"{max(error.retry_after, 0.0):.3f}"))
        message = error.message.encode("utf-8", "replace").decode()
        await self.context.abort(_STATUS[int(error.grpc_status)], message, tuple(trailing))


@dataclasses.dataclass(eq=False)
class RpcFace:
    """Turns handlers into what a gRPC server registers.

    Args:
        reader: reads who calls and how.
        clock: the clock of deadlines.
        uploads: accounts for the messages in flight.
        admit: lets a call of many messages in for the time of its block; see :meth:`DataPlane.admit`.
        message_timeout: seconds that a call may take to send what it sends, one message or many.
        observe: told of each RPC when it is over.
        tracer: follows the RPCs; None records none.
    """

    reader: CallReader
    clock: Clock
    uploads: UploadBudget
    admit: Admit
    message_timeout: float
    observe: Observe | None = None
    tracer: Tracer | None = None

    def __post_init__(self) -> None:
        self.closing = asyncio.Event()
        """Set when the server stops: long-lived streams then end by themselves."""

    def unary(
        self, route: str, request_class: Any, handler: Handler, *, admit: Admit | None = None
    ) -> grpc.RpcMethodHandler:
        """A method with one message in and one out; ``admit`` lets it in, or raises, before the message is
        received. Where ``request_class`` is None the handler gets the raw message.

        Registered as a stream of one message, which is the same on the wire: so it is let in when its
        headers arrive, and an upload that is under way when the server is told to stop is finished.
        """

        async def handle(messages: AsyncIterator[bytes], rpc: Rpc, hold: Hold) -> Any:
            raw = await self._only(messages, hold)
            request = raw if request_class is None else parse(request_class, raw)
            del raw
            return await handler(request, rpc)

        return self._answering_once(route, handle, admit)

    def collecting(
        self, route: str, handler: Callable[[AsyncIterator[bytes], Rpc], Awaitable[Any]]
    ) -> grpc.RpcMethodHandler:
        """A method with many messages in and one out, let in by the core first. ``handler`` gets the raw
        requests, each of which is accounted for until the next is taken. The timeout is one for all of them
        together; what the handler does in between does not count."""

        async def arriving(messages: AsyncIterator[bytes], hold: Hold) -> AsyncIterator[bytes]:
            left = self.message_timeout
            while True:
                since = time.monotonic()
                raw = await self._receive(messages, left)
                left -= time.monotonic() - since
                if raw is None:
                    return
                size = len(raw)
                hold.take(size)
                yield raw
                del raw
                hold.give_back(size)

        async def handle(messages: AsyncIterator[bytes], rpc: Rpc, hold: Hold) -> Any:
            return await handler(arriving(messages, hold), rpc)

        return self._answering_once(route, handle, self.admit)

    def _answering_once(
        self,
        route: str,
        handle: Callable[[AsyncIterator[bytes], Rpc, Hold], Awaitable[Any]],
        admit: Admit | None,
    ) -> grpc.RpcMethodHandler:
        async def behaviour(messages: AsyncIterator[bytes], context: Context) -> bytes:
            rpc = Rpc(self, context)
            async with _Settled(self, route, rpc):
                with admit(rpc) if admit else contextlib.nullcontext(), self.uploads.open() as hold:
                    data: bytes = (await handle(messages, rpc, hold)).SerializeToString()
                    return data

        return grpc.stream_unary_rpc_method_handler(behaviour)

    async def _only(self, messages: AsyncIterator[bytes], hold: Hold) -> bytes:
        """The message of a call that has one, entered in its account."""
        raw = await self._receive(messages, self.message_timeout)
        if raw is None:
            raise InvalidArgument("the call ended before its message")
        hold.take(len(raw))
        return raw

    async def _receive(self, messages: AsyncIterator[bytes], seconds: float) -> bytes | None:
        """The next message of a call, None if it ends without. Raises RequestTimeout if it does not come."""
        try:
            async with asyncio.timeout(seconds):
                return await anext(aiter(messages), None)
        except TimeoutError:
            raise RequestTimeout("the call's message did not arrive in time") from None

    def stream(
        self,
        route: str,
        handler: Callable[[Any, Rpc], Awaitable[None]],
        *,
        request_streaming: bool,
        admit: Admit | None = None,
    ) -> grpc.RpcMethodHandler:
        """A method that answers with a stream. ``handler`` gets the raw request (or the iterator of raw
        requests) and writes raw messages to ``rpc.context``. One request is let in, awaited and accounted
        for as that of :meth:`unary`."""

        async def behaviour(messages: AsyncIterator[bytes], context: Context) -> None:
            rpc = Rpc(self, context)
            async with _Settled(self, route, rpc):
                if request_streaming:
                    await handler(messages, rpc)
                    return
                with admit(rpc) if admit else contextlib.nullcontext(), self.uploads.open() as hold:
                    await handler(await self._only(messages, hold), rpc)

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def over(self, route: str, status: str, rpc: Rpc) -> None:
        """An RPC has ended."""
        if self.observe is not None:
            self.observe(route, status, time.monotonic() - rpc.request_context.arrived, rpc.model)
        if self.tracer is not None:
            attributes: Attributes = {
                "rpc.system": "grpc",
                "rpc.method": route,
                "rpc.response.status_code": status,
            }
            self.tracer.end(rpc.request_context, route, attributes, failed=status in _SERVERS_FAULT)


class _Settled:
    """Ends an RPC with a status whatever happens inside, and reports it."""

    __slots__ = ("_face", "_route", "_rpc")

    def __init__(self, face: RpcFace, route: str, rpc: Rpc) -> None:
        self._face, self._route, self._rpc = face, route, rpc

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        rpc = self._rpc
        status = "OK"
        try:
            if error is None or isinstance(error, grpc.aio.AbortError):
                status = "OK" if error is None else _name(rpc.context.code())
            elif isinstance(error, ServingError):
                status = error.grpc_status.name
                await rpc.refuse(error)
            elif isinstance(error, Exception):
                status = "INTERNAL"
                logger.error("the handler of %s failed", self._route, exc_info=error)
                await rpc.refuse(
                    Internal(
                        "internal error; the server's log has more under request id "
                        f"{rpc.request_context.request_id}"
                    )
                )
            else:
                status = "CANCELLED"
        finally:
            if isinstance(error, ServingError):
                error.told()
                if (trace := rpc.request_context.trace) is not None:
                    trace.error = error.code
            self._face.over(self._route, status, rpc)


def parse(message_class: Any, raw: bytes) -> Any:
    """The message in ``raw``. Raises InvalidArgument if it is not one."""
    try:
        return message_class.FromString(raw)
    except DecodeError:
        name = message_class.DESCRIPTOR.full_name
        raise InvalidArgument(f"the request is not a valid {name} message") from None


def printable(text: str) -> str:
    """``text`` fit for metadata: printable ASCII, at most 256 characters."""
    return _UNPRINTABLE.sub("_", text[:256])


def service(name: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> grpc.GenericRpcHandler:
    """A service of ours as what a gRPC server registers; ``handlers`` are by the names of its methods.

    Raises ValueError if a method of the ``.proto`` has no handler.
    """
    missing = {method.name for method in methods(name)} - handlers.keys()
    if missing:
        raise ValueError(f"{name} has no handler for {', '.join(sorted(missing))}")
    return grpc.method_handlers_generic_handler(name, handlers)


def _name(code: Any) -> str:
    """Name of a status, however the library holds it."""
    status = code if isinstance(code, grpc.StatusCode) else _STATUS.get(code)
    return str(status.name) if status is not None else "UNKNOWN"
