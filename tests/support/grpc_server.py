"""A gRPC server in the test's own event loop, over a real data plane and servables of the test's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from nonet.gateway.cache import ResponseCache
from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.gatekeeper import Gatekeeper
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.core.upload_budget import UploadBudget, disk_budget
from nonet.gateway.executor import Device, EmbeddedDevice
from nonet.gateway.grpc import GrpcServer
from nonet.gateway.process.services import installed_services
from nonet.gateway.settings.grpc_settings import GrpcSettings
from nonet.gateway.settings.schema import AuthSettings
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.host import GatewayHost
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.oip.messages import OPEN_INFERENCE, message, methods
from nonet.runtime.task import Service
from tests.support.misbehaving_servables import DoublingServable

METHODS = {method.name: method for method in methods(OPEN_INFERENCE)}


class Face:
    """A running face, and a client of it."""

    def __init__(
        self, plane: DataPlane, server: GrpcServer, channel: Any, routes: list[Any], port: int
    ) -> None:
        self.plane = plane
        self.server = server
        self.channel = channel
        self.port = port
        self.routes = routes
        """What was observed: (route, status, seconds, model)."""

    def call(self, name: str, request: Any = None, **options: Any) -> Any:
        """Start the RPC ``name``; ``request`` is a message, a dict of its fields, or raw bytes."""
        method = METHODS[name]
        if not isinstance(request, bytes):
            request = method.request(**(request or {})) if not hasattr(request, "DESCRIPTOR") else request
            request = request.SerializeToString()
        return self.channel.unary_unary(method.path, response_deserializer=method.response.FromString)(
            request, timeout=options.pop("timeout", 20), **options
        )

    def infer(self, value: float = 1.0, model: str = "doubler", **options: Any) -> Any:
        return self.call("ModelInfer", infer_request(value, model), **options)

    def stream(self, **options: Any) -> Any:
        method = METHODS["ModelStreamInfer"]
        return self.channel.stream_stream(
            method.path,
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=method.response.FromString,
        )(timeout=20, **options)


def infer_request(value: float = 1.0, model: str = "doubler", identity: str = "", rows: int = 1) -> Any:
    request = message("inference.ModelInferRequest")(model_name=model, id=identity)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    request.raw_input_contents.append(np.full((rows, 4), value, np.float32).tobytes())
    return request


def values(reply: Any) -> list[float]:
    return np.frombuffer(reply.raw_output_contents[0], np.float32).tolist()


@asynccontextmanager
async def serving_grpc(
    *servables: DoublingServable,
    lanes: int = 1,
    auth: AuthSettings | None = None,
    limits: GrpcSettings | None = None,
    repository: Any = None,
    services: Sequence[Service] | None = None,
    catalog: Catalog | None = None,
    devices: Sequence[Device] | None = None,
    uploads: UploadBudget | None = None,
    describe_models: bool = False,
    channel: Sequence[tuple[str, int]] = (),
    message_timeout: float = 60.0,
    repository_control: bool = True,
) -> AsyncIterator[Face]:
    catalog, clock = catalog or Catalog(), MonotonicClock()
    plane = DataPlane(catalog, devices or [EmbeddedDevice(lanes)], clock=clock, cache=ResponseCache(None))
    await plane.start()
    # Published without the calibration that a start would do: slow servables would make it slow.
    plane._calibrator.stop()
    for servable in servables:
        catalog.publish(servable)
    routes: list[Any] = []
    limits = limits or GrpcSettings()
    parts = FaceParts(
        plane,
        CallReader(Gatekeeper(auth or AuthSettings(), clock), clock, 3600.0),
        uploads=uploads or UploadBudget(8 * limits.max_message_bytes),
        disk=disk_budget(limits.max_message_bytes),
        host=GatewayHost(catalog, Path(), None, None, may_remove=False, works={}, jobs=None),
        services=tuple(installed_services().values()) if services is None else services,
        repository=None if repository is None else RepositoryControl(repository),
    )
    server = GrpcServer(
        parts,
        limits,
        message_timeout=message_timeout,
        repository_control=repository_control,
        observe=lambda *record: routes.append(record),
        describe_models=describe_models,
    )
    port = server.bind("127.0.0.1:0")
    await server.start()
    async with AsyncExitStack() as stack:
        client = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1), *channel]
        )
        await stack.enter_async_context(client)
        try:
            yield Face(plane, server, client, routes, port)
        finally:
            for servable in servables:
                servable.close()
            await server.stop(1.0)
            await plane.stop()
