"""Executor that sends batches to a Triton Inference Server over gRPC, and trusts its answers only.

Triton calls a model ready whose process has died or hangs. So a model version is served when a sample
inference was answered (a refusal of the sample is an answer, too), and no more once a request says that its
process is gone, or its deadline passes and the next sample is not answered either; then it is asked until it
answers again. Where ``control`` is set, Triton is told to load the wanted models that it lacks, and to load a
model again that does not answer.

The caller's deadline travels as the gRPC deadline and as Triton's ``timeout`` of the request, so that what
waits in Triton's queue past it is dropped. What Triton says of a failure may hold paths and tracebacks of
Python models; callers are told what it means, and never that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import re
import time
from typing import Any

import grpc
import grpc.aio

from nonet.gateway.executor.contract import BackendCrashed
from nonet.gateway.executor.remote import Metadata, RemoteDevice
from nonet.gateway.executor.triton_memory import TritonMemory
from nonet.gateway.scheduler import QueueKey
from nonet.gateway.settings.topology import RemoteService
from nonet.runtime.backends.samples import SampleInputs
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    ServingError,
    Unavailable,
)
from nonet.runtime.oip import proto_codec
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor
from nonet.runtime.triton.failures import unmarked

logger = logging.getLogger(__name__)

_SAMPLE_SECONDS = 10.0
"""That the answer to a sample may take: the first one of a model may be slow."""
_CONTROL_SECONDS = 120.0
"""That loading a model may take."""
_RELOAD_EVERY = 10.0
"""Seconds between two attempts to have a model loaded."""

_REQUEST_NOTE = re.compile(r"^\[request id: [^\]]*\] ")
_LONGEST_REASON = 300


class ModelCrashed(BackendCrashed):
    """The process of one model went away behind a server that is well."""


class TritonDevice(RemoteDevice):
    """A Triton server; see the module's text. It may serve the models of any services, and its own.

    Args: as of :class:`RemoteDevice`.
    """

    def __init__(
        self, service: RemoteService, catalog: Catalog, number: int = 1, max_message_bytes: int = 128 << 20
    ) -> None:
        super().__init__(service, catalog, number, max_message_bytes)
        self._infos: dict[QueueKey, ModelInfo] = {}
        self._listed: set[QueueKey] = set()  # versions that the look under way has found
        self._proved: dict[QueueKey, str] = {}  # version -> digest of what answered a sample
        self._silent: set[QueueKey] = set()  # versions that answered once, and do not now
        self._samples: dict[QueueKey, asyncio.Task[None]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._loaded: dict[str, float] = {}  # model -> when it was last told to load
        self._memory = TritonMemory(service.shared_memory, service.lanes) if service.shared_memory else None

    def serves(self, key: QueueKey) -> bool:
        return super().serves(key) and key not in self._silent

    async def stop(self) -> None:
        tasks = [*self._samples.values(), *self._loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().stop()
        if self._memory is not None:
            self._memory.close()

    # -- requests -------------------------------------------------------------------------------

    async def _call(self, request: InferRequest, seconds: float | None, metadata: Metadata) -> Any:
        if seconds is not None:
            parameters = {**request.parameters, "timeout": max(int(seconds * 1e6), 1)}
            request = dataclasses.replace(request, parameters=parameters)
        call = functools.partial(
            self._method("unary_unary", "ModelInfer", "inference.ModelInferResponse"),
            timeout=seconds,
            metadata=self._signed(metadata),
        )
        sent = proto_codec.encode_request(request)
        info = self._infos.get((request.model, request.version))
        if self._memory is None or info is None:
            return await call(sent)
        return await self._memory.exchange(sent, info, call, self._look)

    def _meaning(self, error: grpc.aio.AioRpcError) -> ServingError | None:
        return meaning(error)

    def _failure(self, error: grpc.aio.AioRpcError, key: QueueKey) -> ServingError | None:
        failure = meaning(error)
        if failure is None or isinstance(failure, DeadlineExceeded):
            self._doubt(key)
        elif isinstance(failure, ModelCrashed):
            self._silence(key, "its process is gone")
        return failure

    # -- models ---------------------------------------------------------------------------------

    async def _discover(self) -> None:
        self._listed.clear()
        await super()._discover()
        for gone in self._infos.keys() - self._listed:
            del self._infos[gone]
            self._proved.pop(gone, None)
            self._silent.discard(gone)
        if self._service.control:
            for name in {*self._service.models} - {name for name, _ in self._infos}:
                self._load(name)

    def _admit(self, info: ModelInfo) -> bool:
        if self._service.models and info.name not in self._service.models:
            return False
        key = (info.name, info.version)
        self._infos[key] = info
        self._listed.add(key)
        if self._proved.get(key) != info.digest or key in self._silent:
            self._doubt(key)
        return key in self._proved

    def _doubt(self, key: QueueKey) -> None:
        """Send a sample, unless one is under way."""
        if key in self._infos and key not in self._samples:
            self._samples[key] = asyncio.create_task(self._sample(key), name=f"{self.name}-sample")

    async def _sample(self, key: QueueKey) -> None:
        info = self._infos[key]
        try:
            reason = await self._unanswered(info)
        except Exception:
            logger.exception("a sample for model %s of %s could not be made", info.name, self.name)
            reason = "no sample can be made for it"
        finally:
            self._samples.pop(key, None)
        if reason:
            self._silence(key, reason)
            return
        if key not in self._proved or key in self._silent:
            logger.info("%s: model %s version %s answers", self.name, *key)
        self._proved[key] = info.digest  # the next look publishes it
        if key in self._silent:
            self._silent.discard(key)
            self.on_health()

    async def _unanswered(self, info: ModelInfo) -> str:
        """Why a sample of a model was not answered, "" if it was."""
        made = SampleInputs(info.inputs, batches=info.max_batch_size > 0).make(1)
        # Zeros, which more models of others take than any other numbers.
        inputs = tuple(
            Tensor(each.name, each.datatype, each.data if each.data.dtype == object else each.data * 0)
            for each in made
        )
        request = InferRequest(info.name, inputs, info.version)
        call = self._method("unary_unary", "ModelInfer", "inference.ModelInferResponse")
        try:
            await call(
                proto_codec.encode_request(request), timeout=_SAMPLE_SECONDS, metadata=self._signed(())
            )
        except grpc.aio.AioRpcError as error:
            failure = meaning(error)
            if isinstance(failure, InvalidArgument | NotImplementedHere) or (
                failure is not None and unmarked(error.details() or "") is not None
            ):
                return ""  # its own refusal of an input made of zeros
            return failure.message if failure is not None else "the server went away"
        return ""

    def _silence(self, key: QueueKey, reason: str) -> None:
        """Take a version out of every decision until a sample is answered."""
        if key not in self._silent:
            self._silent.add(key)
            logger.warning("%s: model %s version %s does not answer: %s", self.name, *key, reason)
            self.on_health()
        if self._service.control:
            self._load(key[0])

    def _load(self, name: str) -> None:
        """Tell Triton to load a model, at most so often."""
        now = time.monotonic()
        if name in self._loads or now - self._loaded.get(name, -_RELOAD_EVERY) < _RELOAD_EVERY:
            return
        self._loaded[name] = now
        self._loads[name] = task = asyncio.create_task(self._have_loaded(name), name=f"{self.name}-load")
        task.add_done_callback(lambda _: self._loads.pop(name, None))

    async def _have_loaded(self, name: str) -> None:
        """Load a model; one that is there but does not answer is unloaded first, or Triton does nothing."""
        try:
            if any(key[0] == name for key in self._silent):
                await self._look("RepositoryModelUnload", _CONTROL_SECONDS, model_name=name)
                logger.info("%s: model %s was unloaded, to be loaded afresh", self.name, name)
            await self._look("RepositoryModelLoad", _CONTROL_SECONDS, model_name=name)
        except grpc.aio.AioRpcError as error:
            logger.warning("%s does not load model %s: %s", self.name, name, (error.details() or "")[:300])


def meaning(error: grpc.aio.AioRpcError) -> ServingError | None:
    """What Triton said of a request; None if the server went away during it."""
    text = error.details() or ""
    told = unmarked(text)
    if told is not None:
        return told
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE:
        if "timeout expired" in text.lower():
            return DeadlineExceeded("the deadline passed while the request waited for the model")
        if "maximum queue size" in text:
            return Unavailable("the model's queue is full", code="OVERLOADED")
        if "for unknown model" in text:  # one that is being loaded or unloaded
            return NotFound("the server behind this model has it no more", code="VERSION_NOT_FOUND")
        return None
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the model answered")
    if "Stub process" in text:  # Triton's words for a Python model's own process
        return ModelCrashed("the process of this model went away during the request")
    if status is grpc.StatusCode.NOT_FOUND:
        return NotFound("the server behind this model has it no more", code="VERSION_NOT_FOUND")
    if status is grpc.StatusCode.INVALID_ARGUMENT:
        reason = _REQUEST_NOTE.sub("", text).split("\n", 1)[0].split(" NOTE: ", 1)[0]
        return InvalidArgument(reason[:_LONGEST_REASON] or "the model does not accept these inputs")
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return NotImplementedHere("the server behind this model cannot do this")
    return Internal("the service behind this model failed on this request", code="BACKEND_FAILED")
