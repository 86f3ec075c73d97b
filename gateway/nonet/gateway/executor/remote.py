"""Executor that sends batches to another server (Nonet, Triton, Ray Serve, KServe) over the protocol's gRPC.

The device asks the service every ``poll_seconds`` whether it is ready and what it serves, publishes that in
the catalog, and sends each request of a batch on its own: the service has a scheduler of its own and batches
them again. A model whose requests have several answers is called by ``ModelStreamInfer``, any other by
``ModelInfer``. The caller's deadline travels as the gRPC deadline. A service that does not answer is
unhealthy until it answers again; a request it takes down with it fails with :class:`BackendCrashed`, its
peers do not. What is in flight to a service that has been silent for ``hang_seconds`` is given up, as if the
service had been killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf import json_format

from nonet.gateway.executor.contract import BackendCrashed, BatchJob, NotReached, VersionGone
from nonet.gateway.executor.errors import from_status
from nonet.gateway.executor.remote_servable import RemoteServable
from nonet.gateway.scheduler import QueueKey, Rates
from nonet.gateway.settings.topology import RemoteService
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import (
    ClientClosed,
    DeadlineExceeded,
    Internal,
    ModelOutputInvalid,
    NotFound,
    ServingError,
)
from nonet.runtime.oip import description, proto_codec
from nonet.runtime.oip.messages import message
from nonet.runtime.oip.metadata import info_from_proto
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, RequestedOutput
from nonet.runtime.servable import ModelInfo

logger = logging.getLogger(__name__)

_SERVICE = "/inference.GRPCInferenceService/"
_FINAL = "triton_final_response"

_POLL_SECONDS = 1.0
"""Between looks at the health and the models of a service."""
_PROBE_SECONDS = 1.0
"""That a look may take before it has failed."""
_FAILURES = 2
"""Looks in a row that must fail before the service counts as dead."""

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_NOT_SENT = "failed to connect"
"""In what gRPC says of a call for which it found no connection."""
_GONE = (BackendCrashed, NotReached)
"""What takes a service out; their other kinds are of one model of it."""


class RemoteDevice:
    """A replica of a service; see the module's text. Replicas of one service stand in for each other.

    Args:
        service: where it is, and how many batches may be in flight to it at a time.
        catalog: where its models are published.
        number: of the replica; callers see it, and never the address.
        max_message_bytes: largest message either way.
    """

    steps = False

    def __init__(
        self, service: RemoteService, catalog: Catalog, number: int = 1, max_message_bytes: int = 128 << 20
    ) -> None:
        self._service = service
        self._catalog = catalog
        self._max_message_bytes = max_message_bytes
        self.name = f"remote:{service.name}-{number}"
        self.group = service.name
        self.lanes = service.lanes
        self.rates = Rates(service.watts, service.price)
        self.on_health: Callable[[], None] = lambda: None
        self._healthy = False
        self._failures = 0
        self._models: dict[QueueKey, str] = {}  # version -> digest, as the service last told
        self._told: dict[QueueKey, ModelInfo] = {}
        self._odd: set[QueueKey] = set()  # versions it describes in a way we cannot read
        self._channel: grpc.aio.Channel | None = None
        self._poller: asyncio.Task[None] | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[None]] = set()
        self._heard = time.monotonic()  # when the service last answered a look

    @property
    def healthy(self) -> bool:
        return self._healthy

    @property
    def why_unhealthy(self) -> str:
        return f"the service {self.group} does not answer"

    def serves(self, key: QueueKey) -> bool:
        return key in self._models

    async def start(self) -> None:
        limit = self._max_message_bytes
        self._channel = grpc.aio.insecure_channel(
            self._service.address,
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        await self._probe()
        self._poller = asyncio.create_task(self._poll(), name=f"{self.name}-poll")

    def submit(self, job: BatchJob) -> Callable[[], object]:
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        task.add_done_callback(self._given_up.discard)
        return task.cancel

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=1.0)
        if self._channel is not None:
            await self._channel.close()

    # -- batches --------------------------------------------------------------------------------

    async def _run(self, job: BatchJob) -> None:
        started = time.monotonic()
        result: list[Outcome] | BaseException
        try:
            result = list(
                await asyncio.gather(*(self._infer(job, index) for index in range(len(job.requests))))
            )
        except asyncio.CancelledError:
            if asyncio.current_task() in self._given_up:
                result = BackendCrashed("the service behind this model does not answer any more")
            else:
                result = ClientClosed("the batch was abandoned: nobody waits for it any more")
        except Exception as error:
            result = error
        if isinstance(result, list) and any(type(outcome) in _GONE for outcome in result):
            # Out of every decision at once; the next probe that is answered brings it back.
            self._set_health(False)
        job.finished(result, time.monotonic() - started)

    async def _infer(self, job: BatchJob, index: int) -> Outcome:
        # Classes are made from scores by the gateway, for local and remote models alike.
        request = job.requests[index]
        plain = tuple(RequestedOutput(output.name) for output in request.outputs)
        request = dataclasses.replace(request, outputs=plain)
        timeout = None
        if request.deadline is not None:
            timeout = max(request.deadline - time.monotonic(), 0.001)
        try:
            metadata: Metadata = (("x-priority", str(request.priority)), ("cache-control", "no-store"))
            if request.traceparent:
                metadata = (*metadata, ("traceparent", request.traceparent))
            if job.servable.info.decoupled:
                return await self._stream(request, timeout, metadata, functools.partial(job.tell, index))
            return _answer(await self._call(request, timeout, metadata), request)
        except grpc.aio.AioRpcError as error:
            failure = self._failure(error, (request.model, request.version))
            if failure is None and _NOT_SENT in (error.details() or ""):
                return NotReached("the service behind this model does not answer")
            if failure is None:
                return BackendCrashed("the service behind this model went away during the request")
            if isinstance(failure, NotFound):
                await self._probe()  # the service has changed since the last look
                return VersionGone(failure.message)
            return failure
        except ServingError as error:
            return error

    async def _call(self, request: InferRequest, seconds: float | None, metadata: Metadata) -> Any:
        """The ``inference.ModelInferResponse`` to a request. Raises AioRpcError."""
        call = self._method("unary_unary", "ModelInfer", "inference.ModelInferResponse")
        return await call(
            proto_codec.encode_request(request), timeout=seconds, metadata=self._signed(metadata)
        )

    def _meaning(self, error: grpc.aio.AioRpcError) -> ServingError | None:
        """What a call failed of; None if the service went away."""
        return from_status(error)

    def _failure(self, error: grpc.aio.AioRpcError, key: QueueKey) -> ServingError | None:
        """The same, of a call for a model version."""
        return self._meaning(error)

    async def _stream(
        self,
        request: InferRequest,
        seconds: float | None,
        metadata: Metadata,
        tell: Callable[[InferResponse], None],
    ) -> InferResponse:
        """The last of the answers to one request; ``tell`` gets those before it, as they come.

        A service may send its last answer before it knows that none follows; it is then told like the
        others and returned too. Raises AioRpcError, and ServingError for what cannot be used.
        """
        last: InferResponse | None = None
        call = self._method("stream_stream", "ModelStreamInfer", "inference.ModelStreamInferResponse")(
            iter((proto_codec.encode_request(request),)),
            timeout=seconds,
            metadata=self._signed((*metadata, ("triton_grpc_error", "true"))),
        )
        try:
            async for reply in call:
                if reply.error_message:
                    raise Internal(
                        "the service behind this model failed on this request", code="BACKEND_FAILED"
                    )
                answer = reply.infer_response
                parameters = answer.parameters
                final = _FINAL in parameters and parameters[_FINAL].bool_param
                parameters.pop(_FINAL, None)
                if answer.outputs:
                    last = dataclasses.replace(_answer(answer, request), repeats=not final)
                    if not final:
                        tell(last)
        finally:
            call.cancel()  # a stream that has ended is not disturbed
        if last is None:
            raise ModelOutputInvalid("the service gave no answer to the request")
        return last

    def _method(self, kind: str, method: str, reply: str) -> Any:
        """A method of the service, ready to be called; ``kind`` as gRPC names it, ``unary_unary``..."""
        return getattr(self._channel, kind)(
            _SERVICE + method,
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message(reply).FromString,
        )

    def _signed(self, metadata: Metadata) -> Metadata:
        key = self._service.key
        return (*metadata, ("authorization", f"Bearer {key}")) if key else metadata

    # -- health and models ----------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self._probe()
            except Exception:
                # A look that goes wrong in an unforeseen way must not be the last one.
                logger.exception("looking at %s failed", self.name)
                self._set_health(False)

    async def _probe(self) -> None:
        try:
            reply = await self._look("ServerReady")
            if not reply.ready:
                self._failed("it says that it is not ready")
                return
            await self._discover()
        except grpc.aio.AioRpcError as error:
            self._failed(f"{error.code().name}: {(error.details() or '')[:120]}")
            return
        self._failures = 0
        self._heard = time.monotonic()
        self._set_health(True)

    async def _look(self, method: str, seconds: float = _PROBE_SECONDS, /, **request: Any) -> Any:
        """What the service tells of itself, within so many seconds. Raises AioRpcError."""
        sent = message(f"inference.{method}Request")(**request)
        call = self._method("unary_unary", method, f"inference.{method}Response")
        return await call(sent, timeout=seconds, metadata=self._signed(()))

    async def _discover(self) -> None:
        index = await self._look("RepositoryIndex", ready=True)
        seen: dict[QueueKey, str] = {}
        for entry in index.models:
            if entry.state not in ("READY", ""):
                continue
            try:
                info = await self._describe(entry.name, entry.version)
            except ServingError as error:
                if (entry.name, entry.version) not in self._odd:
                    self._odd.add((entry.name, entry.version))
                    logger.warning("%s, model %s: %s", self.name, entry.name[:100], error.message)
                continue
            if not self._admit(info):
                continue
            seen[(info.name, info.version)] = info.digest
            # At every look: a replica that stopped serving the version has taken it out of the catalog.
            self._publish(info)
        before, self._models = self._models, seen
        for name, version in before.keys() - seen.keys():
            self._withdraw(name, version)
        if before.keys() != seen.keys():
            self.on_health()

    def _admit(self, info: ModelInfo) -> bool:
        """Whether a model version that the service tells of is to be served."""
        return True

    async def _describe(self, name: str, version: str) -> ModelInfo:
        """What the service says of one version. Raises ServingError if that cannot be told or read, which is
        no reason to do without its other models; AioRpcError if the service itself is gone or too slow."""
        try:
            return await self._ask_description(name, version)
        except grpc.aio.AioRpcError as error:
            failure = self._meaning(error)
            if failure is None or isinstance(failure, DeadlineExceeded):
                raise
            raise failure from None

    async def _ask_description(self, name: str, version: str) -> ModelInfo:
        config = await self._look("ModelConfig", name=name, version=version)
        parameters = config.config.parameters
        if description.PARAMETER in parameters:
            described = parameters[description.PARAMETER].string_value
            del parameters[description.PARAMETER]
            plain = json_format.MessageToDict(config.config, preserving_proto_field_name=True)
            return description.from_json(described, plain)
        metadata = await self._look("ModelMetadata", name=name, version=version)
        return info_from_proto(metadata, config.config, version)

    def _publish(self, info: ModelInfo) -> None:
        """Put a version in the catalog, unless a replica has put the same one there. What this service tells
        of it may change without its answers (it was profiled meanwhile), and is put there, too."""
        before = self._told.get((info.name, info.version), info)
        self._told[(info.name, info.version)] = info
        try:
            if before == info and self._catalog.info(info.name, info.version).digest == info.digest:
                return
        except ServingError:
            pass
        self._catalog.publish(RemoteServable(info))

    def _withdraw(self, name: str, version: str) -> None:
        self._told.pop((name, version), None)
        with contextlib.suppress(ServingError):
            self._catalog.retire(name, version, timeout=0)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.warning("%s at %s did not answer a look: %s", self.name, self._service.address, reason)
        if self._failures >= _FAILURES:
            self._set_health(False)
            if time.monotonic() - self._heard >= self._service.hang_seconds:
                # A killed service fails its calls; one that hangs would keep them.
                self._given_up |= self._jobs
                for task in self._jobs:
                    task.cancel()

    def _set_health(self, healthy: bool) -> None:
        if healthy != self._healthy:
            self._healthy = healthy
            state = "healthy" if healthy else "not healthy"
            logger.warning("%s at %s is %s", self.name, self._service.address, state)
            self.on_health()


def _answer(reply: Any, request: InferRequest) -> InferResponse:
    """The answer in a message. Raises ModelOutputInvalid if it is none to ``request``."""
    response: InferResponse = proto_codec.decode_response(reply)
    if response.version != request.version:
        raise ModelOutputInvalid("the service answered with another version of the model")
    return response
