"""The gRPC health service (``grpc.health.v1.Health``), which load balancers ask.

Each service has its own status. While the gateway starts, drains or has lost a device it needs, all are
NOT_SERVING; watchers hear of a change at once when they are told of one, and within a second otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from nonet.gateway.grpc.rpc import Rpc, RpcFace, parse
from nonet.runtime.errors import NotFound

SERVICE = "grpc.health.v1.Health"
_RECHECK = 1.0  # seconds

_Status = health_pb2.HealthCheckResponse


class Health:
    """See the module's text.

    Args:
        ready: whether the gateway takes work.
        services: full names of the services that are served; "" (the whole server) is added.
    """

    def __init__(self, ready: Callable[[], bool], services: Iterable[str]) -> None:
        self._ready = ready
        self._services = frozenset(["", *services])
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Readiness may have changed: wake the watchers."""
        self._changed.set()
        self._changed = asyncio.Event()

    def handler(self, face: RpcFace) -> grpc.GenericRpcHandler:
        """What a gRPC server registers. Health needs no key: balancers have none."""

        async def watch(raw: bytes, rpc: Rpc) -> None:
            request = parse(health_pb2.HealthCheckRequest, raw)
            await self._watch(request.service, rpc, face.closing)

        handlers = {
            "Check": face.unary(f"/{SERVICE}/Check", health_pb2.HealthCheckRequest, self._check),
            "Watch": face.stream(f"/{SERVICE}/Watch", watch, request_streaming=False),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _status(self, name: str) -> Any:
        if name not in self._services:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._ready() else _Status.NOT_SERVING

    async def _check(self, request: Any, rpc: Rpc) -> Any:
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            raise NotFound("unknown service", param="service", code="SERVICE_NOT_FOUND")
        return _Status(status=status)

    async def _watch(self, name: str, rpc: Rpc, closing: asyncio.Event) -> None:
        last: Any = None
        end = asyncio.ensure_future(closing.wait())
        try:
            while True:
                changed = self._changed
                status = self._status(name)
                if status != last:
                    await rpc.context.write(_Status(status=status).SerializeToString())
                    last = status
                if closing.is_set():
                    return
                news = asyncio.ensure_future(changed.wait())
                try:
                    await asyncio.wait({news, end}, timeout=_RECHECK, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
        finally:
            end.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await end
