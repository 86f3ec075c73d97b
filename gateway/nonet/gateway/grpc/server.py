"""The gRPC server with all its services, in the event loop of the process."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import grpc.aio

from nonet.gateway.grpc.health import SERVICE as HEALTH
from nonet.gateway.grpc.health import Health
from nonet.gateway.grpc.reflection import Reflection
from nonet.gateway.grpc.rpc import Admit, Handler, Observe, RpcFace, service
from nonet.gateway.oip.operations import Operations
from nonet.gateway.oip.rpc_inference import Inference
from nonet.gateway.oip.rpc_operations import operation_handlers
from nonet.gateway.oip.rpc_streaming import InferenceStream
from nonet.gateway.settings.grpc_settings import GrpcSettings
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.jobs_rpc import JobCalls
from nonet.gateway.tasks.rpc import service_handlers, service_names
from nonet.gateway.tracing import Tracer
from nonet.runtime.errors import NotImplementedHere
from nonet.runtime.oip.messages import JOBS, OPEN_INFERENCE, methods


class GrpcServer:
    """Start it, :meth:`drain` it, stop it. To be made inside the event loop it is to run in.

    Attributes:
        open_inference: the handlers of the Open Inference Protocol by method, for whoever owns the connection
            instead of this server.

    Args:
        parts: what is served.
        limits: of calls and connections.
        message_timeout: seconds that a call may take to send its message, or all messages of an upload in
            pieces together; a caller that is slower is sent away with DEADLINE_EXCEEDED.
        repository_control: whether callers may load and unload models.
        observe: told of each RPC when it is over.
        tracer: follows them; None records none.
        describe_models: whether this process is the remote service of a gateway, which is told all of them.
        beside_others: whether other processes listen on the same port.
    """

    def __init__(
        self,
        parts: FaceParts,
        limits: GrpcSettings,
        *,
        message_timeout: float = 60.0,
        repository_control: bool = True,
        observe: Observe | None = None,
        tracer: Tracer | None = None,
        describe_models: bool = False,
        beside_others: bool = False,
    ) -> None:
        plane, jobs = parts.plane, parts.jobs
        self._face = face = RpcFace(
            parts.calls, plane.clock, parts.uploads, lambda _: plane.admit(), message_timeout, observe, tracer
        )
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
                # Two servers on one port share its connections silently: only where that is meant.
                ("grpc.so_reuseport", int(beside_others)),
                ("grpc.max_metadata_size", 64 << 10),
                *channel_arguments(limits),
            ],
        )
        inference = Inference(plane, parts.uploads, parts.memory)
        operations = Operations(
            plane,
            parts.repository,
            allowed=repository_control,
            face="gRPC",
            unserved=NotImplementedHere,
            memory=parts.memory,
        )
        stream = InferenceStream(plane, inference, limits.stream_window, face.closing, parts.uploads)
        names = [OPEN_INFERENCE, *service_names(parts.services), *([JOBS] if jobs is not None else [])]
        self.health = Health(plane.ready, names)
        described = plane.catalog if describe_models else None
        self.open_inference = _open_inference(
            face, inference, stream, operation_handlers(operations, described)
        )
        handlers = [
            service(OPEN_INFERENCE, self.open_inference),
            self.health.handler(face),
            *Reflection([*names, HEALTH]).handlers(face),
        ]
        handlers += service_handlers(face, parts)
        if jobs is not None:
            handlers.append(_job_service(face, JobCalls(jobs)))
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def bind(self, address: str) -> int:
        """Listen on ``host:port`` (port 0: a free one); returns the port. Raises OSError if it cannot."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        return int(port)

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """End the long-lived streams, take no new calls, give those in flight ``grace`` seconds."""
        self._face.closing.set()
        self.health.changed()
        await self._server.stop(grace)


def _open_inference(
    face: RpcFace, inference: Inference, stream: InferenceStream, operations: Mapping[str, Handler]
) -> dict[str, grpc.RpcMethodHandler]:
    path = f"/{OPEN_INFERENCE}/ModelStreamInfer"
    return {
        **_unary(face, OPEN_INFERENCE, operations),
        **_unary(face, OPEN_INFERENCE, {"ModelInfer": inference.model_infer}, inference.admit),
        "ModelStreamInfer": face.stream(path, stream.serve, request_streaming=True),
    }


def _job_service(face: RpcFace, calls: JobCalls) -> grpc.GenericRpcHandler:
    handlers: dict[str, Handler] = {
        "GetJob": calls.get_job,
        "ListJobs": calls.list_jobs,
        "CancelJob": calls.cancel_job,
    }
    streams = {"WatchJob": calls.watch_job, "ReadResult": calls.read_result}
    return service(
        JOBS,
        {
            **_unary(face, JOBS, handlers),
            **{
                name: face.stream(f"/{JOBS}/{name}", stream, request_streaming=False)
                for name, stream in streams.items()
            },
        },
    )


def _unary(
    face: RpcFace, name: str, handlers: Mapping[str, Handler], admit: Admit | None = None
) -> dict[str, grpc.RpcMethodHandler]:
    """The methods of a service with one message each way that have a handler; with ``admit`` they ask for
    work of the core, and what is under way when the server stops is finished."""
    return {
        method.name: face.unary(method.path, method.request, handlers[method.name], admit=admit)
        for method in methods(name)
        if method.name in handlers
    }


def channel_arguments(limits: GrpcSettings) -> list[tuple[str, int]]:
    """How long connections live and how often they may be pinged, by the library's names; no age is 0."""
    return [
        ("grpc.keepalive_time_ms", limits.keepalive_time),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout),
        # Without it the library gives an idle connection a minute, whatever the keepalive says.
        ("grpc.http2.ping_timeout_ms", limits.keepalive_timeout),
        ("grpc.keepalive_permit_without_calls", int(limits.keepalive_permit_without_calls)),
        ("grpc.http2.max_pings_without_data", limits.http2_max_pings_without_data),
        # Of the pings that are received, in spite of its name.
        ("grpc.http2.min_ping_interval_without_data_ms", limits.http2_min_recv_ping_interval_without_data),
        ("grpc.http2.max_ping_strikes", limits.http2_max_ping_strikes),
        *(
            (f"grpc.{name}_ms", age)
            for name in ("max_connection_age", "max_connection_age_grace")
            if (age := getattr(limits, name))
        ),
    ]
