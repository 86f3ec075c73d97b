"""``POST /v1/classify``: an image in, the best classes out."""

from __future__ import annotations

import time

import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.calling import CallReader, answer_headers
from nonet.gateway.classification import TASK, best_classes
from nonet.gateway.core import DataPlane
from nonet.gateway.exchange import Exchange
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.rest.classify_form import ClassifyInput, media_type, read_input
from nonet.gateway.rest.openapi_task import CLASSIFY
from nonet.gateway.rest.reply import Reply
from nonet.gateway.rest.schemas import ClassifyResponse
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor


def classify_router(plane: DataPlane, calls: CallReader, bodies: Bodies) -> APIRouter:
    """The route, as FastAPI documents it. The body is read by hand: see :mod:`classify_form`."""
    router = APIRouter(tags=["Recognition"])

    @router.post(
        "/v1/classify",
        summary="Classify an image",
        response_model=ClassifyResponse,
        **CLASSIFY,
    )
    async def classify(request: Request) -> Response:
        exchange = Exchange.of(request.scope)
        call = calls.read(exchange)
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
                    inputs=(Tensor.of_bytes(info.inputs[0].name, [wanted.image]),),
                    deadline=call.deadline,
                    priority=call.priority,
                    tenant=call.tenant,
                    use_cache=call.use_cache,
                    store_in_cache=call.store_in_cache,
                ),
                admitted=True,
            )
            inferred = time.perf_counter()
        answer = _answer(info, response, wanted)
        headers = answer_headers(response, decoded - start, time.perf_counter() - inferred)
        return RawResponse(Reply(answer, headers=headers))

    return router


class RawResponse(Response):
    """A :class:`Reply` as FastAPI wants to have it."""

    def __init__(self, reply: Reply) -> None:
        self.status_code = reply.status
        self.body = reply.body
        self.background = None
        self.raw_headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]


def _answer(info: ModelInfo, response: InferResponse, wanted: ClassifyInput) -> bytes:
    scores = response.outputs[0].data.reshape(-1)
    return orjson.dumps(
        {"model": info.network or info.name, "predictions": best_classes(scores, info.labels, wanted.top_k)}
    )
