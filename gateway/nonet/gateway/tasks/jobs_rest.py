"""``/v1/jobs``: look at long work, watch it, cancel it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.reply import RawResponse, Reply, StreamedReply, raw_headers
from nonet.gateway.tasks.jobs_schemas import CANCEL, EVENTS, JOB, JOBS, RESULT, JobList
from nonet.gateway.tasks.request_reader import read_query
from nonet.gateway.tasks.rest import EVENT_STREAM
from nonet.jobs import DEFAULT_PAGE, Job, Jobs, PageQuery, read_states
from nonet.runtime.errors import InvalidArgument, Unprocessable

_PIECE = 256 * 1024
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


ResultHeaders = Callable[[Mapping[str, Any]], Mapping[str, str]]
"""Given a job's result, the headers of the file that it has made."""


def jobs_router(
    jobs: Jobs, calls: CallReader, files: Mapping[str, ResultHeaders], root_path: str = ""
) -> APIRouter:
    """The routes, as FastAPI documents them.

    Args:
        files: what to say of the files that jobs of a kind make.
        root_path: goes before the paths that callers are told.
    """
    router = APIRouter(tags=["Jobs"])

    def tenant_of(request: Request) -> str:
        return calls.authenticate(RequestContext.of(request.scope))

    @router.get("/v1/jobs", summary="List jobs", response_model=JobList, **JOBS)
    async def page(request: Request) -> Response:
        tenant = tenant_of(request)
        found = await jobs.page(tenant, _limits(request.scope["query_string"]))
        shown = [job.public(root_path) for job in found.jobs]
        return RawResponse(Reply.json({"object": "list", "data": shown, "has_more": found.more}))

    @router.get("/v1/jobs/{job}", summary="Look at a job", response_model=Job, **JOB)
    async def get(job: str, request: Request) -> Response:
        found = await jobs.get(job, tenant_of(request))
        return RawResponse(Reply.json(found.public(root_path)))

    @router.delete("/v1/jobs/{job}", summary="Cancel a job", response_model=Job, **CANCEL)
    async def cancel(job: str, request: Request) -> Response:
        cancelled = await jobs.cancel(job, tenant_of(request))
        return RawResponse(Reply.json(cancelled.public(root_path), 200 if cancelled.state.ended else 202))

    @router.get("/v1/jobs/{job}/result", summary="Fetch a result", response_class=Response, **RESULT)
    async def result(job: str, request: Request) -> Response:
        found = await jobs.result(job, tenant_of(request))
        describe, facts = files.get(found.job.kind), found.job.result or {}
        headers = [
            (b"content-type", str(facts["content_type"]).encode()),
            (b"content-length", b"%d" % found.size),
            (b"cache-control", b"private, no-cache"),
            *(raw_headers(describe(facts)) if describe else ()),
        ]
        return RawResponse(StreamedReply(headers, found.pieces(_PIECE)))

    @router.get("/v1/jobs/{job}/events", summary="Watch a job", response_class=Response, **EVENTS)
    async def events(job: str, request: Request) -> Response:
        tenant = tenant_of(request)
        seen = _seen(RequestContext.of(request.scope).given(b"last-event-id"))
        found = await jobs.get(job, tenant)
        if seen > found.revision:
            raise _no_event(str(seen))
        if found.state.ended and found.revision <= seen:
            # To a browser's EventSource this means: do not connect again.
            return Response(status_code=204)
        pieces = _events(jobs.watch(job, tenant, seen), root_path)
        return RawResponse(StreamedReply(EVENT_STREAM, pieces))

    return router


async def _events(watched: AsyncIterator[Job | None], root_path: str) -> AsyncGenerator[bytes, None]:
    """Server-sent events: one for each state that is read of a job, a comment now and then in between."""
    state = ""
    async for job in watched:
        if job is None:
            yield b": still here\n\n"
        else:
            name = b"progress" if job.state.value == state else b"state"
            state = job.state.value
            data = orjson.dumps(job.public(root_path))
            yield b"event: %s\nid: %d\ndata: %s\n\n" % (name, job.revision, data)


def _seen(text: str | None) -> int:
    """The revision after which events are wanted."""
    if text is None:
        return 0
    if _NUMBER.fullmatch(text) is None:
        raise _no_event(text)
    return int(text)


def _no_event(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"Last-Event-ID must be the id of an event of this job, got {text[:40]!r}", param="Last-Event-ID"
    )


def _limits(query: bytes) -> PageQuery:
    """The page that a query asks for. Raises Unprocessable for an unknown field, InvalidArgument."""
    given: dict[str, str] = {}
    for name, value in read_query(query, 16):
        if name not in ("limit", "after", "state"):
            raise Unprocessable(
                f"unknown field {name[:80]!r}; the fields are limit, after, state", param=name[:80]
            )
        if name in given and name != "state":
            raise Unprocessable(f"field '{name}' is repeated", param=name)
        given[name] = f"{given[name]},{value}" if name in given else value
    limit = given.get("limit", str(DEFAULT_PAGE))
    if _NUMBER.fullmatch(limit) is None:
        raise Unprocessable(f"field 'limit' must be an integer, got {limit[:40]!r}", param="limit")
    if given.get("after") == "":
        raise InvalidArgument("field 'after' must be the id of a job, got ''", param="after")
    states = given["state"].split(",") if "state" in given else []
    return PageQuery(int(limit), given.get("after", ""), read_states(states))
