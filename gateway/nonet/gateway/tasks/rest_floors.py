"""``/v1/floors``: fit buildings, look at them, identify floors."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request, Response

from nonet.gateway.core.call_headers import CallReader, answer_headers
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.reply import Reply
from nonet.gateway.tasks.floors import Floors, floor_answers
from nonet.gateway.tasks.floors_form import media_type, query_fields, read_upload_form
from nonet.gateway.tasks.floors_schemas import (
    BUILDING,
    BUILDINGS,
    DELETE,
    FIT,
    IDENTIFY,
    PICTURE,
    BuildingBody,
    BuildingList,
    IdentifyResponse,
)
from nonet.gateway.tasks.identify_body import read_scans
from nonet.gateway.tasks.jobs_schemas import JobEnvelope
from nonet.gateway.tasks.rest_classify import RawResponse
from nonet.jobs import read_key
from nonet.runtime.errors import UnsupportedMediaType

__all__ = ["UPLOADS", "floors_router"]

_INLINE = 1 << 20
"""Bytes of scans that are read at once; more would hold up the other requests."""

UPLOADS = "/v1/floors/buildings"
"""The route whose bodies go to the disk as they arrive."""


def floors_router(
    plane: DataPlane, calls: CallReader, bodies: Bodies, floors: Floors, max_upload: int
) -> APIRouter:
    """The routes, as FastAPI documents them. Bodies are read by hand: see :mod:`.floors_form`."""
    router = APIRouter(tags=["Floors"])

    @router.post(UPLOADS, status_code=202, summary="Fit a building", response_model=JobEnvelope, **FIT)
    async def fit(request: Request) -> Response:
        exchange = Exchange.of(request.scope)
        call = calls.read(exchange)
        # Let in with its headers: an upload that is under way when the server is told to stop is finished.
        with plane.admit():
            kind = media_type(exchange)
            key = read_key(exchange.header(b"idempotency-key"))
            fields = query_fields(request.scope["query_string"])
            await floors.able()
            await floors.check(fields, call.tenant)
            with floors.receiving() as body:
                await bodies.spool(exchange, request.receive, body, max_upload)
                calls.in_time(call)
                upload = await asyncio.to_thread(
                    read_upload_form,
                    kind,
                    exchange.header(b"content-type"),
                    fields,
                    body,
                )
                job, fresh = await floors.fit(upload, call.tenant, key)
        headers = [(b"location", f"/v1/jobs/{job.id}".encode())]
        if not fresh:
            headers.append((b"idempotency-replayed", b"true"))
        reply = Reply.json({"job": job.public()}, 202)
        reply.headers += headers
        return RawResponse(reply)

    @router.get(UPLOADS, summary="List buildings", response_model=BuildingList, **BUILDINGS)
    async def buildings(request: Request) -> Response:
        calls.authenticate(Exchange.of(request.scope))
        return RawResponse(Reply.json({"object": "list", "data": floors.buildings()}))

    @router.get(
        UPLOADS + "/{building}", summary="Describe a building", response_model=BuildingBody, **BUILDING
    )
    async def building(building: str, request: Request) -> Response:
        calls.authenticate(Exchange.of(request.scope))
        return RawResponse(Reply.json(await floors.building(building)))

    @router.delete(UPLOADS + "/{building}", status_code=204, summary="Delete a building", **DELETE)
    async def delete(building: str, request: Request) -> Response:
        await floors.delete(building, calls.authenticate(Exchange.of(request.scope)))
        return Response(status_code=204)

    @router.get(
        UPLOADS + "/{building}/picture", summary="Picture of a building", response_class=Response, **PICTURE
    )
    async def picture(building: str, request: Request) -> Response:
        calls.authenticate(Exchange.of(request.scope))
        content = await floors.picture(building)
        return RawResponse(
            Reply(content, content_type=b"image/png", headers=[(b"cache-control", b"no-cache")])
        )

    @router.post(
        UPLOADS + "/{building}/identify",
        summary="Identify floors",
        response_model=IdentifyResponse,
        **IDENTIFY,
    )
    async def identify(building: str, request: Request) -> Response:
        exchange = Exchange.of(request.scope)
        call = calls.read(exchange)
        with plane.admit():
            kind, _, _ = exchange.header(b"content-type").partition(";")
            if kind.strip().lower() not in ("", "application/json"):
                raise UnsupportedMediaType(
                    f"send application/json, not {kind.strip()[:80]!r}", param="Content-Type"
                )
            await floors.check_known(building)
            body = await bodies.read(exchange, request.receive)
            calls.in_time(call)
            start = time.perf_counter()
            if len(body) <= _INLINE:
                scans = read_scans(body)
            else:
                scans = await asyncio.to_thread(read_scans, body)
            del body
            decoded = time.perf_counter()
            info, response = await floors.identify(building, scans, call)
            inferred = time.perf_counter()
        reply = Reply.json({"building": building, "floors": floor_answers(info, response)})
        reply.headers += answer_headers(response, decoded - start, time.perf_counter() - inferred)
        return RawResponse(reply)

    return router
