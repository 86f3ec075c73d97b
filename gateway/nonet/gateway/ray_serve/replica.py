"""A service as a replica of Ray Serve: the same parts as ``nonet service``, called by Ray instead of a port.

Ray owns the connection; it hands over the messages of a call and its metadata, and takes status and trailing
metadata back. So the handlers of our gRPC face run unchanged, on a context that stands for Ray's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio

from nonet.gateway.process.compose import compose
from nonet.gateway.process.repository_following import following
from nonet.gateway.settings.schema import Settings

Pairs = Sequence[tuple[str, str | bytes]]


class RayReplica:
    """One service; to be made, started and called inside one event loop.

    Args:
        service: its name.
        settings: all settings; ports and sockets are not used.
    """

    def __init__(self, service: str, settings: Settings) -> None:
        self._gateway = compose(settings, only=service)
        self._server = self._gateway.grpc_server()

    async def start(self) -> None:
        """Load and warm up every model. Raises OSError if the repository cannot be read."""
        repository, control = self._gateway.repository, self._gateway.parts.repository
        assert repository is not None
        assert control is not None
        await control.run(repository.load_all)
        await self._gateway.plane.start()
        if poll := self._gateway.settings.repository.poll_seconds:
            self._following = following(repository, control, poll)
            self._following.start(poll)

    def check(self) -> None:
        """Raises RuntimeError where this replica cannot serve, so that Ray replaces it. One that has no model
        is well: it says itself that it is not ready."""
        plane = self._gateway.plane
        if not plane.accepting:
            raise RuntimeError(plane.why_unready())

    async def unary(self, method: str, message: bytes, ray_context: Any) -> Reply:
        """The answer to a call with one message each way, ``ModelInfer`` for example."""
        context = _Context(ray_context)

        async def messages() -> AsyncIterator[bytes]:
            yield message

        try:
            return Reply(await self._server.open_inference[method].stream_unary(messages(), context))
        except grpc.aio.AbortError:
            return Reply(b"")  # the status has been set

    async def stream(
        self, method: str, messages: AsyncIterator[bytes], ray_context: Any
    ) -> AsyncIterator[Reply]:
        """The answers to a call with a stream each way; leaving the iterator withdraws the work."""
        context = _Context(ray_context)
        serving = asyncio.ensure_future(self._server.open_inference[method].stream_stream(messages, context))
        try:
            while not (serving.done() and context.written.empty()):
                writing = asyncio.ensure_future(context.written.get())
                await asyncio.wait({writing, serving}, return_when=asyncio.FIRST_COMPLETED)
                if not writing.done():
                    writing.cancel()
                    continue
                yield Reply(writing.result())
            if not isinstance(serving.exception(), grpc.aio.AbortError):
                serving.result()
        finally:
            serving.cancel()


class Reply:
    """An answer that is bytes already, as Ray wants to have a message."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The bytes of the message."""
        return self._data


class _Context:
    """What our handlers use of a ``grpc.aio.ServicerContext``, on what Ray passes to a replica."""

    def __init__(self, ray_context: Any) -> None:
        self._ray = ray_context
        self.written: asyncio.Queue[bytes] = asyncio.Queue(1)

    def invocation_metadata(self) -> Pairs:
        pairs: Pairs = self._ray.invocation_metadata()
        return pairs

    def time_remaining(self) -> None:
        """Ray does not tell; the metadata ``x-request-timeout-ms`` does."""

    def set_trailing_metadata(self, pairs: Pairs) -> None:
        self._ray.set_trailing_metadata(list(pairs))

    def code(self) -> Any:
        return self._ray.code()

    async def write(self, data: bytes) -> None:
        await self.written.put(data)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Pairs = ()) -> None:
        """End the call with a status. Raises AbortError."""
        self._ray.set_code(code)
        self._ray.set_details(details)
        self._ray.set_trailing_metadata(list(trailing))
        raise grpc.aio.AbortError
