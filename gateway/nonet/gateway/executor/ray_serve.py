"""The device of a service that runs on Ray Serve: replicas on many machines behind one address.

Ray chooses the replica, starts new ones where more is asked than those can do, and replaces those that die.
Requests go to Ray's own gRPC ingress, to the application that has the service's name. Guarantees: what a
replica refuses or fails on is told as by any service; a request whose replica died is tried once more, which
inference allows, and no other request is held up for it, since other replicas serve on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from nonet.gateway.executor.contract import BackendCrashed
from nonet.gateway.executor.errors import ERROR_CODE, from_status
from nonet.gateway.executor.remote import Metadata, RemoteDevice
from nonet.runtime.errors import ServingError, Unavailable
from nonet.runtime.requests import InferRequest, InferResponse


class ReplicaGone(BackendCrashed):
    """One of the replicas behind the ingress went away with a request."""


class RayServeDevice(RemoteDevice):
    """An ingress of Ray Serve; see the module's text. Args: as of :class:`RemoteDevice`."""

    def _signed(self, metadata: Metadata) -> Metadata:
        return super()._signed((*metadata, ("application", self._service.name)))

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
        named = any(name == ERROR_CODE for name, _ in error.trailing_metadata() or ())
        if not named and error.code() is grpc.StatusCode.INTERNAL:
            # Ray's word for a replica that died under a request; a failure of ours carries its code.
            return ReplicaGone("the service behind this model went away during the request")
        if not named and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Unavailable("all replicas of the service are busy", code="OVERLOADED", retry_after=1.0)
        return from_status(error)


def _with_time(metadata: Metadata, seconds: float | None) -> Metadata:
    """Ray does not tell the replica how long its caller waits, so that is said in the metadata too."""
    return metadata if seconds is None else (*metadata, ("x-request-timeout-ms", f"{seconds * 1e3:.3f}"))
