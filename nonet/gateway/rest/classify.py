"""``POST /v1/classify``: an image in, the best classes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.core import DataPlane
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.exchange import Exchange
from nonet.gateway.rest.calling import CallReader, answer_headers
from nonet.gateway.rest.classify_form import ClassifyInput, media_type, read_input
from nonet.gateway.rest.openapi_task import CLASSIFY
from nonet.gateway.rest.reply import Reply
from nonet.gateway.rest.schemas import ClassifyResponse
from nonet.runtime.errors import Unavailable
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, Tensor

TASK = "classification"


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
        if not plane.accepting:
            raise Unavailable("the server is draining; try another one", code="DRAINING")
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
            )
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


def best_classes(scores: Array, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The ``count`` best of ``scores`` (C,), best first; of equal scores the lower index first.

    A class without a label is called by its index. The scores are exact: float32 values as float64.
    """
    count = min(count, scores.size)
    if count * 4 < scores.size:
        # Everything at least as good as the count-th best, so that ties are broken the same way as below.
        threshold = np.partition(scores, scores.size - count)[scores.size - count]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(scores.size)
    order = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return [
        {
            "index": index,
            "label": labels[index] if index < len(labels) else str(index),
            "score": score,
        }
        for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
    ]
