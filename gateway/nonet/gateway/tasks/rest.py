"""The task API over HTTP: one handler for every task, one for every resource, whichever service they are
of."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import unquote_plus

import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive

from nonet.gateway.core.call import Call
from nonet.gateway.core.call_headers import answer_headers, asks_to_explain
from nonet.gateway.core.explaining import compact
from nonet.gateway.core.request_context import RawHeaders, RequestContext
from nonet.gateway.http.accept_header import preferred
from nonet.gateway.http.bodies import Bodies, Spooling
from nonet.gateway.http.problems import error_body
from nonet.gateway.http.reply import RawResponse, Reply, StreamedReply, raw_headers
from nonet.gateway.tasks.asking import Asking
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.fields import FieldReader, path_parameters
from nonet.gateway.tasks.request_reader import APPLIED, RequestReader, prefers_async
from nonet.gateway.tasks.submits import Submission, Submits
from nonet.jobs import read_key
from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.requests import InferResponse
from nonet.runtime.task import Answer, Blob, Event, Resource, Service, Task

EVENT_STREAM: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


_MODEL_FIELD = re.compile(rb"(?:^|&)model=([^&]*)")


class TaskRoute:
    """The handler of one task.

    Args:
        task: what is asked.
        parts: what the faces share.
        bodies: reads bodies within their limits.
    """

    def __init__(self, task: Task, parts: FaceParts, bodies: Bodies) -> None:
        self.task = task
        self.fields = FieldReader(task)
        self._asking = Asking(task, parts)
        self._reader = RequestReader(task, self.fields, bodies)
        self._plane = parts.plane
        self._calls = parts.calls
        self._bodies = bodies
        self._root_path = parts.root_path
        self._submits = parts.submits if task.work is not None else None
        self._always = task.work is not None and task.work.always
        self._streams = task.event is not None
        self._types = ("application/json", *task.accepts)

    def spooling(self) -> Spooling | None:
        """Which bodies go to the disk; None if none does."""
        if self._submits is None:
            return None
        return Spooling(self._submits.largest(self.task), self._reader.goes_to_disk)

    def check(self, context: RequestContext, query: bytes) -> None:
        """Raises what a request is refused with by its headers: who, quota, queue, deadline. One that becomes
        a job has no such limits but who and quota."""
        call = self._calls.read(context)
        if self._submits is None or not (self._always or prefers_async(context)):
            self._asking.check(call, self._named(query))

    def _named(self, query: bytes) -> str:
        """The model as far as the query names it: where it stands in the body, that counts instead, and the
        path of a task may name it, too."""
        if b"model=" not in query:
            return ""
        found = _MODEL_FIELD.search(query)
        return unquote_plus(found[1].decode("latin-1")) if found else ""

    async def __call__(
        self,
        context: RequestContext,
        receive: Receive,
        query: bytes,
        parameters: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer to one request. Raises every ServingError of the failure model."""
        call = self._calls.read(context)
        if b"explain=" in query:
            query, call = _without_explain(query, call)
        if self._submits is not None and (self._always or prefers_async(context)):
            return await self._submit(self._submits, context, call, receive, query, parameters or {})
        asking = self._asking
        with contextlib.ExitStack() as admission:
            # Let in with its headers: an upload that is under way when the server is told to stop is
            # finished.
            admission.enter_context(asking.admit(call, self._named(query)))
            kind = self._reader.media_type(context)
            if self.task.work is not None:
                read_key(context.given(b"idempotency-key"))  # of no use here, but it must be one
            beside = self._reader.query(query, job=False)
            info = await asking.find(parameters or {})
            sent = await self._reader.read(context, receive, kind)
            self._calls.in_time(call)

            start = time.perf_counter()
            asked = self._accepted(context)
            fields = self.fields.check({**asked, **beside, **sent.values, **(parameters or {})})
            question = asking.question(fields, sent.file, call, info)
            del sent
            decoded = time.perf_counter()
            if self._streams and fields.stream:
                events = event_pieces(asking.events(question))
                return StreamedReply(
                    [*EVENT_STREAM, *_placement_header(question.placement)], events, admission.pop_all()
                )
            response = await asking.response(question)
            inferred = time.perf_counter()
        answer = asking.answer(question, response)
        placement = asking.placement(question, response)
        if placement is not None and not isinstance(answer, Blob):
            answer = {**answer, "placement": placement}
        reply = answer_reply(answer)
        if isinstance(answer, Blob):
            reply.headers += _placement_header(placement)
        reply.headers += answer_headers(response, decoded - start, time.perf_counter() - inferred)
        return reply

    def _accepted(self, context: RequestContext) -> Mapping[str, Any]:
        """What the fields are, where they are not given, for the media type that the caller prefers."""
        return self.task.accepts.get(preferred(context, self._types), {}) if self.task.accepts else {}

    async def _submit(
        self,
        submits: Submits,
        context: RequestContext,
        call: Call,
        receive: Receive,
        query: bytes,
        parameters: Mapping[str, str],
    ) -> Reply:
        """The job that a request becomes; a deadline is one for the submit."""
        task = self.task
        assert task.work is not None
        with self._plane.admit():
            kind = self._reader.media_type(context)
            key = read_key(context.given(b"idempotency-key"))
            beside = self._reader.query(query, job=True)
            await submits.jobs.able(task.work.kind)
            await submits.check(task.work, {**beside, **parameters}, call.tenant)
            with self._bodies.on_disk() as hold, submits.jobs.files.receiving() as path:
                limit = submits.largest(task)
                sent = await self._reader.spool(context, receive, kind, path, limit)
                if not self._reader.goes_to_disk(context):
                    hold.take(path.stat().st_size)
                self._calls.in_time(call)
                values = {**sent.values, **parameters}
                submission = Submission(path, values, sent.filename, call.tenant, key, beside, call.floor)
                if submission.given.get("webhook") == "":
                    raise InvalidArgument("webhook must be a URL; leave it out for none", param="webhook")
                job, fresh = await submits.submit(task, self.fields, submission)
        reply = Reply.json({"job": job.public(self._root_path)}, 202)
        reply.headers.append((b"location", f"{self._root_path}/v1/jobs/{job.id}".encode()))
        if not self._always:
            reply.headers.append(APPLIED)
        if not fresh:
            reply.headers.append((b"idempotency-replayed", b"true"))
        return reply


def _without_explain(query: bytes, call: Call) -> tuple[bytes, Call]:
    """A query without the parameter ``explain``, and the call with what it says."""
    kept = []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"explain":
            call = dataclasses.replace(call, explain=asks_to_explain(value.decode("latin-1"), "explain"))
        else:
            kept.append(pair)
    return b"&".join(kept), call


def _placement_header(placement: dict[str, Any] | None) -> RawHeaders:
    return [] if placement is None else [(b"x-placement", compact(placement))]


def answer_reply(answer: Answer) -> Reply:
    """An answer as a reply: a mapping as JSON, a file as it is."""
    if isinstance(answer, Blob):
        return Reply(
            answer.content, content_type=answer.content_type.encode(), headers=raw_headers(answer.headers)
        )
    return Reply(orjson.dumps(answer, default=_as_text))


def _as_text(value: Any) -> str:
    """What JSON has no type for: bytes, in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError


async def event_pieces(
    events: AsyncGenerator[tuple[InferResponse, Event], None],
) -> AsyncGenerator[bytes, None]:
    """Several answers as server-sent events; a failure after the first is the last event, ``error``."""
    begun = False
    async with contextlib.aclosing(events):
        try:
            async for _, event in events:
                begun = True
                yield b"event: %s\ndata: %s\n\n" % (
                    event.name.encode(),
                    orjson.dumps(event.data, default=_as_text),
                )
        except ServingError as error:
            if not begun:
                raise
            yield b"event: error\ndata: %s\n\n" % error_body("/v1/", error)
            error.told()


def service_router(service: Service, routes: Mapping[str, TaskRoute], parts: FaceParts) -> APIRouter:
    """The routes of a service, for FastAPI to find; what it documents of them is in :mod:`.openapi`."""
    router = APIRouter(include_in_schema=False)
    for task in service.tasks:
        router.add_api_route(task.path, _task_endpoint(routes[task.path]), methods=["POST"])
    for resource in service.resources:
        router.add_api_route(resource.path, _resource_endpoint(resource, parts), methods=[resource.verb])
    return router


def _task_endpoint(route: TaskRoute) -> Any:
    async def endpoint(request: Request) -> Response:
        scope = request.scope
        parameters = request.path_params if path_parameters(route.task.path) else None
        context = RequestContext.of(scope)
        return RawResponse(await route(context, request.receive, scope["query_string"], parameters))

    return endpoint


def _resource_endpoint(resource: Resource, parts: FaceParts) -> Any:
    async def endpoint(request: Request) -> Response:
        tenant = parts.calls.authenticate(RequestContext.of(request.scope))
        answer = await resource.handle(parts.host, request.path_params, tenant)
        if answer is None:
            return Response(status_code=204)
        return RawResponse(answer_reply(answer))

    return endpoint
