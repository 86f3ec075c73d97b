"""``/v1/jobs``: look at long work, watch it, cancel it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.request_context import RawHeaders, RequestContext
from nonet.gateway.http.guard import Receive, Scope, Send
from nonet.gateway.http.query import read_query
from nonet.gateway.http.reply import RawResponse, Reply, raw_headers
from nonet.gateway.tasks.jobs_schemas import CANCEL, EVENTS, JOB, JOBS, RESULT, JobBody, JobList
from nonet.jobs import Job, Jobs, PageQuery, ResultFile, read_states
from nonet.runtime.errors import InvalidArgument, Unprocessable

_PIECE = 256 * 1024
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


ResultHeaders = Callable[[Mapping[str, Any]], Mapping[str, str]]
"""Given a job's result, the headers of the file that it has made."""


def jobs_router(jobs: Jobs, calls: CallReader, files: Mapping[str, ResultHeaders]) -> APIRouter:
    """The routes, as FastAPI documents them. ``files``: what to say of the files that jobs of a kind make."""
    router = APIRouter(tags=["Jobs"])

    @router.get("/v1/jobs", summary="List jobs", response_model=JobList, **JOBS)
    async def page(request: Request) -> Response:
        tenant = calls.authenticate(RequestContext.of(request.scope))
        limits = _limits(request.scope["query_string"])
        found = await jobs.page(tenant, limits)
        return RawResponse(
            Reply.json(
                {"object": "list", "data": [job.public() for job in found.jobs], "has_more": found.more}
            )
        )

    @router.get("/v1/jobs/{job}", summary="Look at a job", response_model=JobBody, **JOB)
    async def get(job: str, request: Request) -> Response:
        tenant = calls.authenticate(RequestContext.of(request.scope))
        return RawResponse(Reply.json((await jobs.get(job, tenant)).public()))

    @router.delete("/v1/jobs/{job}", summary="Cancel a job", response_model=JobBody, **CANCEL)
    async def cancel(job: str, request: Request) -> Response:
        tenant = calls.authenticate(RequestContext.of(request.scope))
        cancelled = await jobs.cancel(job, tenant)
        return RawResponse(Reply.json(cancelled.public(), 200 if cancelled.state.ended else 202))

    @router.get("/v1/jobs/{job}/result", summary="Fetch a result", response_class=Response, **RESULT)
    async def result(job: str, request: Request) -> Response:
        tenant = calls.authenticate(RequestContext.of(request.scope))
        found = await jobs.result(job, tenant)
        describe = files.get(found.job.kind)
        facts = found.job.result or {}
        return _FileStream(found, [] if describe is None else raw_headers(describe(facts)))

    @router.get("/v1/jobs/{job}/events", summary="Watch a job", response_class=Response, **EVENTS)
    async def events(job: str, request: Request) -> Response:
        context = RequestContext.of(request.scope)
        tenant = calls.authenticate(context)
        seen = _seen(context.header(b"last-event-id"))
        found = await jobs.get(job, tenant)
        if found.state.ended and found.revision <= seen:
            # To a browser's EventSource this means: do not connect again.
            return Response(status_code=204)
        return _EventStream(jobs.watch(job, tenant, seen))

    return router


class _FileStream(Response):
    """The file that a job has made, a piece at a time; one that is removed meanwhile is sent to its end."""

    def __init__(self, result: ResultFile, headers: RawHeaders) -> None:
        self._result = result
        self._facts = headers
        self.status_code = 200
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", str((self._result.job.result or {})["content_type"]).encode()),
            (b"content-length", b"%d" % self._result.size),
            (b"cache-control", b"private, no-cache"),
            *self._facts,
        ]
        async with contextlib.aclosing(self._result.pieces(_PIECE)) as pieces:
            # What fails before the first piece is still answered as an error.
            piece = await anext(pieces, b"")
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await anext(pieces, b"")
        await send({"type": "http.response.body", "body": b""})


class _EventStream(Response):
    """Server-sent events: one for each state that is read of a job, a comment now and then in between."""

    def __init__(self, watched: AsyncIterator[Job | None]) -> None:
        self._watched = watched
        self.status_code = 200
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What fails before the first event is still answered as an error.
        first = await anext(self._watched, None)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        state = ""
        more: Job | None = first
        while True:
            if more is not None:
                name = "progress" if more.state.value == state else "state"
                state = more.state.value
                await send({"type": "http.response.body", "body": _event(name, more), "more_body": True})
            else:
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
            try:
                more = await anext(self._watched)
            except StopAsyncIteration:
                break
        await send({"type": "http.response.body", "body": b""})


def _event(name: str, job: Job) -> bytes:
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), job.revision, orjson.dumps(job.public()))


def _seen(text: str) -> int:
    """The revision after which events are wanted."""
    if not text:
        return 0
    if _NUMBER.fullmatch(text) is None:
        raise InvalidArgument(
            f"Last-Event-ID must be the id of an event of this job, got {text[:40]!r}", param="Last-Event-ID"
        )
    return int(text)


def _limits(query: bytes) -> PageQuery:
    """The page that a query asks for. Raises Unprocessable for an unknown field, InvalidArgument."""
    given: dict[str, Any] = {}
    states: list[str] = []
    for name, value in read_query(query, 16):
        if name == "state":
            states += value.split(",")
        elif name not in ("limit", "after"):
            raise Unprocessable(
                f"unknown field {name[:80]!r}; the fields are limit, after, state", param=name[:80]
            )
        elif name in given:
            raise Unprocessable(f"field '{name}' is repeated", param=name)
        else:
            given[name] = value
    if "limit" in given:
        if _NUMBER.fullmatch(given["limit"]) is None:
            raise Unprocessable(
                f"field 'limit' must be an integer, got {given['limit'][:40]!r}", param="limit"
            )
        given["limit"] = int(given["limit"])
    return PageQuery(states=read_states(states), **given)
