"""The gRPC server with all its services, in the event loop of the process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.core.upload_budget import UploadBudget, disk_budget
from nonet.gateway.grpc.health import SERVICE as HEALTH
from nonet.gateway.grpc.health import Health
from nonet.gateway.grpc.reflection import Reflection
from nonet.gateway.grpc.rpc import Admit, Handler, Observe, Rpc, RpcFace, service
from nonet.gateway.grpc.transport import GrpcTransport
from nonet.gateway.oip.rpc_control import Control
from nonet.gateway.oip.rpc_inference import Inference
from nonet.gateway.oip.rpc_streaming import InferenceStream
from nonet.gateway.tasks.jobs_rpc import JobCalls
from nonet.gateway.tasks.rpc import service_handlers, service_names
from nonet.gateway.tasks.submits import Submits
from nonet.jobs import Jobs
from nonet.runtime.oip.messages import JOBS, OPEN_INFERENCE, methods
from nonet.runtime.task import Host, Service

__all__ = ["GrpcLimits", "GrpcServer"]


@dataclasses.dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Limits of the gRPC face.

    Args:
        max_message_bytes: largest message of a caller; more is RESOURCE_EXHAUSTED.
        message_timeout: seconds that a call may take to send its message, or all messages of an upload in
            pieces together; a caller that is slower is sent away with DEADLINE_EXCEEDED.
        max_concurrent_streams: calls in flight on one connection.
        max_concurrent_rpcs: calls in flight on all connections together; more is RESOURCE_EXHAUSTED.
        stream_window: open requests of one ModelStreamInfer stream.
        repository_control: whether callers may load and unload models.

    Raises ValueError for a number that is not positive.
    """

    max_message_bytes: int = 64 << 20
    message_timeout: float = 60.0
    max_concurrent_streams: int = 1024
    max_concurrent_rpcs: int = 4096
    stream_window: int = 32
    repository_control: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0 and field.name != "repository_control":
                raise ValueError(f"{field.name} must be positive, got {getattr(self, field.name)}")


class GrpcServer:
    """Start it, :meth:`drain` it, stop it. To be made inside the event loop it is to run in.

    Args:
        plane: the core.
        reader: reads who calls and how.
        limits: see :class:`GrpcLimits`.
        transport: see :class:`~nonet.gateway.grpc.transport.GrpcTransport`.
        repository: controls the model repository; None if there is none.
        uploads: accounts for the messages in flight; by default a budget of eight of the largest.
        disk: accounts for what of them goes to the disk; by default a budget for this face alone.
        observe: told of each RPC when it is over.
        services: whose typed services are offered beside the inference protocol.
        host: lent to the services' own handlers; needed with ``services``.
        submits: makes jobs of requests; None where there are no jobs.
        describe_models: see :class:`~nonet.gateway.oip.rpc_inference.Inference`.
        jobs: long work; None where there is none.
    """

    def __init__(
        self,
        plane: DataPlane,
        reader: CallReader,
        *,
        limits: GrpcLimits | None = None,
        transport: GrpcTransport | None = None,
        repository: RepositoryControl | None = None,
        uploads: UploadBudget | None = None,
        disk: UploadBudget | None = None,
        observe: Observe | None = None,
        services: Sequence[Service] = (),
        host: Host | None = None,
        submits: Submits | None = None,
        describe_models: bool = False,
        jobs: Jobs | None = None,
    ) -> None:
        limits = limits or GrpcLimits()
        uploads = uploads or UploadBudget(8 * limits.max_message_bytes)
        disk = disk or disk_budget(limits.max_message_bytes)
        self._face = face = RpcFace(
            reader, plane.clock, uploads, lambda _: plane.admit(), limits.message_timeout, observe
        )
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
                # Two servers on one port would share its connections silently.
                ("grpc.so_reuseport", 0),
                ("grpc.max_metadata_size", 64 << 10),
                *(transport or GrpcTransport()).channel_arguments(),
            ],
        )
        inference = Inference(plane, describe_models=describe_models)
        control = Control(plane, repository, allowed=limits.repository_control)
        stream = InferenceStream(inference, limits.stream_window, face.closing, uploads)
        names = [OPEN_INFERENCE, *service_names(services), *([JOBS] if jobs is not None else [])]
        self.health = Health(plane.ready, names)
        handlers = [
            _open_inference(face, inference, stream, control),
            self.health.handler(face),
            *Reflection([*names, HEALTH]).handlers(face),
        ]
        if services:
            assert host is not None
            handlers += service_handlers(face, plane, services, host, submits, disk)
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
    face: RpcFace, inference: Inference, stream: InferenceStream, control: Control
) -> grpc.GenericRpcHandler:
    handlers: dict[str, Handler] = {
        "ServerLive": inference.server_live,
        "ServerReady": inference.server_ready,
        "ModelReady": inference.model_ready,
        "ServerMetadata": inference.server_metadata,
        "ModelMetadata": inference.model_metadata,
        "ModelConfig": inference.model_config,
        "ModelStatistics": inference.model_statistics,
        "ModelInfer": inference.model_infer,
        "RepositoryIndex": control.repository_index,
        "RepositoryModelLoad": control.repository_model_load,
        "RepositoryModelUnload": control.repository_model_unload,
        "SystemSharedMemoryStatus": control.system_shared_memory_status,
        "SystemSharedMemoryRegister": control.shared_memory_register,
        "SystemSharedMemoryUnregister": control.system_shared_memory_unregister,
        "CudaSharedMemoryStatus": control.cuda_shared_memory_status,
        "CudaSharedMemoryRegister": control.shared_memory_register,
        "CudaSharedMemoryUnregister": control.cuda_shared_memory_unregister,
        "TraceSetting": control.trace_setting,
        "LogSettings": control.log_settings,
    }

    async def stream_infer(requests: Any, rpc: Rpc) -> None:
        await stream.serve(requests, rpc)

    return _unary_service(
        face,
        OPEN_INFERENCE,
        handlers,
        extra=[
            (
                "ModelStreamInfer",
                face.stream(f"/{OPEN_INFERENCE}/ModelStreamInfer", stream_infer, request_streaming=True),
            )
        ],
        admit={"ModelInfer": inference.admit},
    )


def _job_service(face: RpcFace, calls: JobCalls) -> grpc.GenericRpcHandler:
    handlers: dict[str, Handler] = {
        "GetJob": calls.get_job,
        "ListJobs": calls.list_jobs,
        "CancelJob": calls.cancel_job,
    }
    watch = face.stream(f"/{JOBS}/WatchJob", calls.watch_job, request_streaming=False)
    read = face.stream(f"/{JOBS}/ReadResult", calls.read_result, request_streaming=False)
    return _unary_service(face, JOBS, handlers, extra=[("WatchJob", watch), ("ReadResult", read)])


def _unary_service(
    face: RpcFace,
    name: str,
    handlers: dict[str, Handler],
    extra: Sequence[tuple[str, grpc.RpcMethodHandler]] = (),
    admit: Mapping[str, Admit] = MappingProxyType({}),
) -> grpc.GenericRpcHandler:
    """All methods of a service; those in ``admit`` ask for work of the core, and what is under way when the
    server stops is finished. Raises ValueError if one of the `.proto` has no handler."""
    registered = list(extra)
    for method in methods(name):
        if method.client_streaming or method.server_streaming:
            continue
        handler, let_in = handlers[method.name], admit.get(method.name)
        registered.append((method.name, face.unary(method.path, method.request, handler, admit=let_in)))
    missing = {method.name for method in methods(name)} - {each for each, _ in registered}
    if missing:
        raise ValueError(f"{name} has no handler for {', '.join(sorted(missing))}")
    return service(name, registered)
