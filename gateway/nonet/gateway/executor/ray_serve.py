"""The device of a service that runs on Ray Serve: replicas on many machines behind one address.

Ray chooses the replica, starts new ones where more is asked than those can do, and replaces those that die.
Requests go to Ray's own gRPC ingress, to the application that has the service's name. Guarantees: what a
replica refuses or fails on is told as by any service; a request whose replica died is tried once more, which
inference allows, and no other request is held up for it, since other replicas serve on. An ingress is well
as long as it says so itself. Limit: until Ray knows of a death (seconds) it sends requests there, which wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc

from nonet.gateway.executor.contract import BackendCrashed
from nonet.gateway.executor.errors import ERROR_CODE, from_status
from nonet.gateway.executor.remote import Metadata, RemoteDevice
from nonet.runtime.errors import ServingError, Unavailable
from nonet.runtime.requests import InferRequest, InferResponse

_HEALTH = "/ray.serve.RayServeAPIService/Healthz"
_HEALTH_SECONDS = 3.0
_LOOK_SECONDS = 5.0
"""That a look at the models may take: it stands in line with the requests."""
_TOLD_BY_RAY = "request_id"
"""Trailing metadata of what has come from the ingress, whatever became of the replica."""


class ReplicaGone(BackendCrashed):
    """One of the replicas behind the ingress went away with a request."""


class RayServeDevice(RemoteDevice):
    """An ingress of Ray Serve; see the module's text. Args: as of :class:`RemoteDevice`."""

    def _signed(self, metadata: Metadata) -> Metadata:
        return super()._signed((*metadata, ("application", self._service.name)))

    async def _probe(self) -> None:
        """The ingress answers for itself. What the replicas told of their models stands while they are slow
        or one of them dies: looks go to any of them, and to a dead one until Ray knows."""
        assert self._channel is not None
        try:
            await self._channel.unary_unary(_HEALTH)(b"", timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._failed(f"{error.code().name}: {(error.details() or '')[:120]}")
            return
        try:
            await self._discover()
        except grpc.aio.AioRpcError as error:
            if not self._models:
                self._failed(f"its replicas say nothing: {error.code().name}")
                return
        self._failures = 0
        self._heard = time.monotonic()
        self._set_health(True)

    async def _look(self, method: str, seconds: float = _LOOK_SECONDS, /, **request: Any) -> Any:
        return await super()._look(method, seconds, **request)

    async def _call(self, request: InferRequest, seconds: float | None, metadata: Metadata) -> Any:
        return await super()._call(request, seconds, _with_time(metadata, seconds))

    async def _stream(
        self,
        request: InferRequest,
        seconds: float | None,
        metadata: Metadata,
        tell: Callable[[InferResponse], None],
    ) -> InferResponse:
        return await super()._stream(request, seconds, _with_time(metadata, seconds), tell)

    def _meaning(self, error: grpc.aio.AioRpcError) -> ServingError | None:
        trailing = dict(error.trailing_metadata() or ())
        status = error.code()
        if ERROR_CODE in trailing:
            return from_status(error)
        if status is grpc.StatusCode.INTERNAL:
            # Ray's word for a replica that died under a request; a failure of ours carries its code.
            return ReplicaGone("the service behind this model went away during the request")
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Unavailable("all replicas of the service are busy", code="OVERLOADED", retry_after=1.0)
        if status is grpc.StatusCode.UNAVAILABLE and _TOLD_BY_RAY in trailing:
            return ReplicaGone("no replica of the service behind this model is left")
        return from_status(error)


def _with_time(metadata: Metadata, seconds: float | None) -> Metadata:
    """Ray does not tell the replica how long its caller waits, so that is said in the metadata too."""
    return metadata if seconds is None else (*metadata, ("x-request-timeout-ms", f"{seconds * 1e3:.3f}"))
