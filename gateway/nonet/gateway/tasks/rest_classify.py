"""``POST /v1/classify``: an image in, the best classes out."""

from __future__ import annotations

import time

import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.core.call_headers import CallReader, answer_headers
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.guard import Receive
from nonet.gateway.http.reply import Reply
from nonet.gateway.tasks.classification import TASK, best_classes
from nonet.gateway.tasks.classify_form import ClassifyInput, media_type, read_input
from nonet.gateway.tasks.openapi_task import CLASSIFY
from nonet.gateway.tasks.schemas import ClassifyResponse
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor

CLASSIFY_PATH = "/v1/classify"


class Classification:
    """The handler.

    Args:
        plane: the core.
        calls: reads what the headers say.
        bodies: reads bodies within their limits.
    """

    def __init__(self, plane: DataPlane, calls: CallReader, bodies: Bodies) -> None:
        self._plane = plane
        self._calls = calls
        self._bodies = bodies

    async def __call__(self, exchange: Exchange, receive: Receive, query: bytes) -> Reply:
        """One picture classified. Raises every ServingError of the failure model."""
        plane = self._plane
        call = self._calls.read(exchange)
        # Let in with its headers: an upload that is under way when the server is told to stop is finished.
        with plane.admit():
            kind = media_type(exchange)
            body = await self._bodies.read(exchange, receive)
            self._calls.in_time(call)

            start = time.perf_counter()
            wanted = read_input(kind, exchange.header(b"content-type"), query, body)
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
        return Reply(answer, headers=headers)


def classify_router(classification: Classification) -> APIRouter:
    """The route, as FastAPI documents it. The body is read by hand: see :mod:`classify_form`."""
    router = APIRouter(tags=["Recognition"])

    @router.post(
        CLASSIFY_PATH,
        summary="Classify an image",
        response_model=ClassifyResponse,
        **CLASSIFY,
    )
    async def classify(request: Request) -> Response:
        scope = request.scope
        return RawResponse(await classification(Exchange.of(scope), request.receive, scope["query_string"]))

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
