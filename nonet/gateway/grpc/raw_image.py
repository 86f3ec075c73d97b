"""``nonet.v1.RawImage``: the typed form of ``POST /v1/raw/develop``, with the same answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson

from nonet.gateway.core import DataPlane
from nonet.gateway.grpc.jobs import job_message
from nonet.gateway.grpc.rpc import Rpc, parse
from nonet.gateway.jobs import read_key
from nonet.gateway.raw_captures import CaptureUpload, RawCaptures
from nonet.gateway.raw_development import TASK
from nonet.gateway.storage import storage_errors
from nonet.runtime.errors import InvalidArgument, NotImplementedHere, PayloadTooLarge
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, Parameter
from nonet.runtime.tensors import Tensor

__all__ = ["RawImage"]

_LONGEST_TEXT = 256
_TEXTS = ("cfa", "output", "render", "white_balance")
_NUMBERS = ("white_level", "width", "height", "noise")
_LISTS = ("black_level", "camera_matrix")


class RawImage:
    """The handlers of the service."""

    def __init__(self, plane: DataPlane, captures: RawCaptures | None = None) -> None:
        self._plane = plane
        self._captures = captures

    async def develop(self, request: Any, rpc: Rpc) -> Any:
        """The picture of one capture. Raises ServingError."""
        call = rpc.read()
        started = time.perf_counter()
        if not request.raw:
            raise _empty()
        if request.webhook:
            raise InvalidArgument("webhook goes with SubmitDevelop; Develop makes no job", param="webhook")
        parameters = _parameters(request)
        info = self._plane.choose(
            TASK, request.model or "auto", deadline=call.deadline, priority=call.priority
        )
        inferring = time.perf_counter()
        response = await self._plane.infer(
            InferRequest(
                model=info.name,
                version=info.version,
                inputs=(Tensor.of_bytes(info.inputs[0].name, [request.raw]),),
                parameters=parameters,
                deadline=call.deadline,
                priority=call.priority,
                tenant=call.tenant,
                use_cache=call.use_cache,
                store_in_cache=call.store_in_cache,
            ),
            admitted=True,
        )
        inferred = time.perf_counter()
        rpc.model = response.model
        facts = orjson.loads(response.output("details").data[0])
        reply = message("nonet.v1.DevelopResponse")(
            model=info.network or info.name,
            version=response.version,
            picture=response.output("picture").data[0],
            content_type=facts["content_type"],
            width=facts["width"],
            height=facts["height"],
            noise_sigma=facts["noise"]["sigma"] if facts["noise"]["known"] else None,
            white_balance=facts.get("white_balance", ()),
            std_scale=facts.get("std_scale"),
        )
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply

    async def submit_develop(self, messages: AsyncIterator[bytes], rpc: Rpc) -> Any:
        """The job that one capture becomes. Raises ServingError."""
        if self._captures is None:
            raise NotImplementedHere("there are no jobs here; use Develop")
        call = rpc.read()
        key = read_key(rpc.exchange.header(b"idempotency-key"))
        await self._captures.able()
        with self._captures.receiving() as path:
            first: Any = None
            size = 0
            async for raw in messages:
                request = parse(message("nonet.v1.DevelopRequest"), raw)
                size += len(request.raw)
                if size > self._captures.max_upload:
                    raise PayloadTooLarge(
                        f"the capture is larger than {self._captures.max_upload} bytes", param="raw"
                    )
                await asyncio.to_thread(_append, path, request.raw)
                if first is None:
                    request.ClearField("raw")
                    first = request
            if first is None or size == 0:
                raise _empty()
            upload = CaptureUpload(path, _parameters(first), first.model or "auto", webhook=first.webhook)
            job, fresh = await self._captures.submit(upload, call.tenant, key)
        return message("nonet.v1.SubmitDevelopResponse")(job=job_message(job), replayed=not fresh)


def _empty() -> InvalidArgument:
    return InvalidArgument("raw is empty; send the bytes of a capture", param="raw", code="RAW_EMPTY")


def _append(path: Path, data: bytes) -> None:
    with storage_errors(), path.open("ab") as file:
        file.write(data)


def _parameters(request: Any) -> dict[str, Parameter]:
    """The service's parameters; what is unset or empty is left out. Raises InvalidArgument."""
    for name in ("model", *_TEXTS):
        if len(getattr(request, name)) > _LONGEST_TEXT:
            raise InvalidArgument(f"{name} has at most {_LONGEST_TEXT} characters", param=name)
    parameters: dict[str, Parameter] = {
        name: getattr(request, name) for name in _TEXTS if getattr(request, name)
    }
    for name in _NUMBERS:
        if request.HasField(name):
            parameters[name] = getattr(request, name)
    for name in _LISTS:
        values = list(getattr(request, name))
        if len(values) > 16 or not all(map(math.isfinite, values)):
            raise InvalidArgument(f"{name} must be a few finite numbers", param=name)
        if values:
            parameters[name] = ",".join(map(repr, values))
    if request.uncertainty:
        parameters["uncertainty"] = True
    return parameters
