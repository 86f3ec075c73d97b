"""``nonet.v1.RawImage``: the typed form of ``POST /v1/raw/develop``, with the same answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.upload_budget import Hold, UploadBudget
from nonet.gateway.grpc.rpc import Rpc, parse
from nonet.gateway.tasks.jobs_rpc import job_message
from nonet.gateway.tasks.raw_captures import CaptureUpload, RawCaptures
from nonet.gateway.tasks.raw_development import TASK
from nonet.jobs import read_key
from nonet.runtime.errors import InvalidArgument, NotImplementedHere, PayloadTooLarge
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, Parameter
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.tensors import Tensor

__all__ = ["RawImage"]

_LONGEST_TEXT = 256
_TEXTS = ("cfa", "output", "render", "white_balance")
_NUMBERS = ("white_level", "width", "height", "noise")
_LISTS = ("black_level", "camera_matrix")


class RawImage:
    """The handlers of the service.

    Args:
        plane: develops what is waited for.
        disk: accounts for the captures that go to the disk.
        captures: makes jobs of captures; None where there are no jobs.
    """

    def __init__(self, plane: DataPlane, disk: UploadBudget, captures: RawCaptures | None = None) -> None:
        self._plane = plane
        self._disk = disk
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
        with self._disk.open() as hold, self._captures.receiving() as path:
            asked = await self._spool(messages, path, hold, self._captures.max_upload)
            upload = CaptureUpload(path, _parameters(asked), asked.model or "auto", webhook=asked.webhook)
            job, fresh = await self._captures.submit(upload, call.tenant, key)
        return message("nonet.v1.SubmitDevelopResponse")(job=job_message(job), replayed=not fresh)

    async def _spool(self, messages: AsyncIterator[bytes], path: Path, hold: Hold, limit: int) -> Any:
        """Write the capture to a new file as it arrives; the first message without it, which says what to do.

        Raises PayloadTooLarge for more than ``limit`` bytes, Unavailable when all uploads together take too
        much of the disk, InsufficientStorage or Unavailable when it is full, InvalidArgument for a capture or
        a piece of it that is empty.
        """
        request_class = message("nonet.v1.DevelopRequest")
        asked: Any = None
        size = 0
        with storage_errors(), path.open("xb") as file:
            async for encoded in messages:
                request = parse(request_class, encoded)
                piece: bytes = request.raw
                if asked is None:
                    request.ClearField("raw")
                    # A copy: what a message has cleared it keeps in memory.
                    asked = request_class()
                    asked.CopyFrom(request)
                elif not piece:
                    raise InvalidArgument("every message after the first must bring bytes", param="raw")
                size += len(piece)
                if size > limit:
                    raise PayloadTooLarge(f"the capture is larger than {limit} bytes", param="raw")
                hold.take(len(piece))
                await asyncio.to_thread(file.write, piece)
                # What is on the disk is in memory no longer, however late the next message comes.
                del encoded, request, piece
        if size == 0:
            raise _empty()
        return asked


def _empty() -> InvalidArgument:
    return InvalidArgument("raw is empty; send the bytes of a capture", param="raw", code="RAW_EMPTY")


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
