"""``POST /v1/raw/develop``: a raw capture in, a picture out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.core.call_headers import CallReader, answer_headers
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import Exchange, RawHeaders
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.prefer_header import prefers_async
from nonet.gateway.http.reply import Reply
from nonet.gateway.tasks.raw_develop_form import media_type, read_input
from nonet.gateway.tasks.raw_develop_schemas import DEVELOP
from nonet.gateway.tasks.raw_development import TASK
from nonet.gateway.tasks.raw_submit import CaptureSubmits
from nonet.gateway.tasks.rest_classify import RawResponse
from nonet.runtime.requests import InferRequest
from nonet.runtime.tensors import Tensor

DEVELOP_PATH = "/v1/raw/develop"


def raw_develop_router(
    plane: DataPlane, calls: CallReader, bodies: Bodies, submits: CaptureSubmits | None
) -> APIRouter:
    """The route, as FastAPI documents it. The body is read by hand: see :mod:`raw_develop_form`.

    ``submits`` takes the captures of callers who prefer a job; without it that preference is not followed.
    """
    router = APIRouter(tags=["Raw images"])

    @router.post(
        DEVELOP_PATH,
        summary="Develop a raw capture",
        response_class=Response,
        **DEVELOP,
    )
    async def develop(request: Request) -> Response:
        exchange = Exchange.of(request.scope)
        call = calls.read(exchange)
        if submits is not None and prefers_async(exchange):
            return RawResponse(await submits(exchange, call, request.receive, request.scope["query_string"]))
        # Let in with its headers: an upload that is under way when the server is told to stop is finished.
        with plane.admit():
            kind = media_type(exchange)
            body = await bodies.read(exchange, request.receive)
            calls.in_time(call)

            start = time.perf_counter()
            wanted = read_input(kind, exchange.header(b"content-type"), request.scope["query_string"], body)
            del body
            info = plane.choose(TASK, wanted.model, deadline=call.deadline, priority=call.priority)
            decoded = time.perf_counter()
            response = await plane.infer(
                InferRequest(
                    model=info.name,
                    version=info.version,
                    inputs=(Tensor.of_bytes(info.inputs[0].name, [wanted.raw]),),
                    parameters=wanted.parameters,
                    deadline=call.deadline,
                    priority=call.priority,
                    tenant=call.tenant,
                    use_cache=call.use_cache,
                    store_in_cache=call.store_in_cache,
                ),
                admitted=True,
            )
            inferred = time.perf_counter()
        facts: dict[str, Any] = orjson.loads(response.output("details").data[0])
        picture: bytes = response.output("picture").data[0]
        headers = picture_headers(facts)
        headers += answer_headers(response, decoded - start, time.perf_counter() - inferred)
        return RawResponse(Reply(picture, content_type=facts["content_type"].encode(), headers=headers))

    return router


def result_headers(result: Mapping[str, Any]) -> RawHeaders:
    """The headers of a picture that a job has made, from the job's result."""
    return [*picture_headers(result["details"]), (b"x-model-version", str(result["version"]).encode())]


def picture_headers(facts: Mapping[str, Any]) -> RawHeaders:
    """The headers that say what was done to the capture, from the service's ``details``."""
    headers: RawHeaders = []
    if facts["noise"]["known"]:
        headers.append((b"x-noise-sigma", f"{facts['noise']['sigma']:g}".encode()))
    if "white_balance" in facts:
        headers.append(
            (b"x-white-balance", ",".join(f"{gain:g}" for gain in facts["white_balance"]).encode())
        )
    if "std_scale" in facts:
        headers.append((b"x-std-scale", repr(facts["std_scale"]).encode()))
    return headers
