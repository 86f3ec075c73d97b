"""The task API over HTTP: one handler for every task, one for every resource, whichever service they are
of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from nonet.gateway.core.call_headers import Call, CallReader, answer_headers
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import Exchange, RawHeaders
from nonet.gateway.http.bodies import Bodies, Spooling
from nonet.gateway.http.guard import Receive, Send
from nonet.gateway.http.prefer_header import APPLIED, prefers_async
from nonet.gateway.http.problems import error_body
from nonet.gateway.http.reply import RawResponse, Reply, raw_headers
from nonet.gateway.tasks.asking import answered
from nonet.gateway.tasks.fields import FieldReader, path_parameters
from nonet.gateway.tasks.request_reader import RequestReader
from nonet.gateway.tasks.submits import Submission, Submits
from nonet.jobs import read_key
from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import Answer, Blob, Event, Host, Resource, Service, Task

__all__ = ["EVENT_STREAM", "EventStream", "TaskRoute", "answer_reply", "service_router"]

EVENT_STREAM: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class TaskRoute:
    """The handler of one task.

    Args:
        task: what is asked.
        plane: the core.
        calls: reads what the headers say.
        bodies: reads bodies within their limits.
        host: lent to the service's own handlers.
        submits: makes jobs of requests; None where there are no jobs.
        root_path: goes before the paths that callers are told.
    """

    def __init__(
        self,
        task: Task,
        plane: DataPlane,
        calls: CallReader,
        bodies: Bodies,
        host: Host,
        submits: Submits | None,
        root_path: str = "",
    ) -> None:
        self.task = task
        self.fields = FieldReader(task)
        self._reader = RequestReader(task, self.fields, bodies)
        self._plane = plane
        self._calls = calls
        self._bodies = bodies
        self._host = host
        self._root_path = root_path
        self._submits = submits if task.work is not None else None
        self._always = task.work is not None and task.work.always
        self._streams = task.event is not None

    def spooling(self) -> Spooling | None:
        """Which bodies go to the disk; None if none does."""
        if self._submits is None:
            return None
        return Spooling(self._submits.limits.upload_bytes, self._reader.goes_to_disk)

    async def __call__(
        self,
        exchange: Exchange,
        receive: Receive,
        query: bytes,
        parameters: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer to one request. Raises every ServingError of the failure model."""
        call = self._calls.read(exchange)
        if self._submits is not None and (self._always or prefers_async(exchange)):
            return await self._submit(self._submits, exchange, call, receive, query)
        task, plane = self.task, self._plane
        assert task.ask is not None
        assert task.answer is not None
        with contextlib.ExitStack() as admission:
            # Let in with its headers: an upload that is under way when the server is told to stop is
            # finished.
            admission.enter_context(
                plane.admit(task=task.name, deadline=call.deadline, priority=call.priority)
            )
            kind = self._reader.media_type(exchange)
            if task.work is not None:
                read_key(exchange.given(b"idempotency-key"))  # of no use here, but it must be one
            beside = self._reader.query(query, job=False)
            info = None if task.find is None else await task.find(self._host, parameters or {})
            sent = await self._reader.read(exchange, receive, kind)
            self._calls.in_time(call)

            start = time.perf_counter()
            fields = self.fields.check({**beside, **sent.values, **(parameters or {})})
            question = task.ask(fields, sent.file)
            del sent
            if info is None:
                info = plane.choose(
                    task.name, fields.model or "auto", deadline=call.deadline, priority=call.priority
                )
            request = call.request(info, question.inputs, question.parameters, exact=task.find is None)
            decoded = time.perf_counter()
            if self._streams and fields.stream:
                return EventStream(self._events(info, request, fields), admission.pop_all())
            response = await answered(plane, task, request)
            inferred = time.perf_counter()
        answer = task.answer(info, response, fields)
        reply = answer_reply(answer)
        reply.headers += answer_headers(response, decoded - start, time.perf_counter() - inferred)
        return reply

    async def _events(self, info: ModelInfo, request: InferRequest, fields: Any) -> AsyncIterator[Event]:
        assert self.task.event is not None
        number = 0
        async with contextlib.aclosing(self._plane.stream(request, admitted=True)) as answers:
            async for response in answers:
                yield self.task.event(fields, info, response, number)
                number += 1

    async def _submit(
        self, submits: Submits, exchange: Exchange, call: Call, receive: Receive, query: bytes
    ) -> Reply:
        """The job that a request becomes; a deadline is one for the submit."""
        task = self.task
        assert task.work is not None
        with self._plane.admit():
            kind = self._reader.media_type(exchange)
            key = read_key(exchange.given(b"idempotency-key"))
            beside = self._reader.query(query, job=True)
            await submits.able(task.work)
            await submits.check(task.work, beside, call.tenant)
            with self._bodies.on_disk() as hold, submits.receiving() as path:
                limit = submits.limits.upload_bytes
                sent = await self._reader.spool(exchange, receive, kind, path, limit)
                if not self._reader.goes_to_disk(exchange):
                    hold.take(path.stat().st_size)
                self._calls.in_time(call)
                submission = Submission(path, sent.values, sent.filename, call.tenant, key, beside)
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


def answer_reply(answer: Answer) -> Reply:
    """An answer as a reply: a mapping as JSON, a file as it is."""
    if isinstance(answer, Blob):
        return Reply(
            answer.content, content_type=answer.content_type.encode(), headers=raw_headers(answer.headers)
        )
    return Reply(orjson.dumps(answer))


class EventStream(Reply):
    """Several answers as server-sent events; a failure after the first is the last event, ``error``."""

    def __init__(self, events: AsyncIterator[Event], admission: contextlib.ExitStack) -> None:
        super().__init__()
        self._events = events
        self._admission = admission

    async def send(self, send: Send) -> None:
        """Put the events on the wire as they come."""
        with self._admission:
            # What fails before the first event is still answered as an error.
            event = await anext(self._events, None)
            await send({"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM)})
            try:
                while event is not None:
                    await send({"type": "http.response.body", "body": _event(event), "more_body": True})
                    event = await anext(self._events, None)
            except ServingError as error:
                body = b"event: error\ndata: %s\n\n" % error_body("/v1/", error)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                error.told()
            await send({"type": "http.response.body", "body": b""})


def _event(event: Event) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.name.encode(), orjson.dumps(event.data))


def service_router(
    service: Service, routes: Mapping[str, TaskRoute], calls: CallReader, host: Host
) -> APIRouter:
    """The routes of a service, for FastAPI to find; what it documents of them is in :mod:`.openapi`."""
    router = APIRouter(include_in_schema=False)
    for task in service.tasks:
        router.add_api_route(task.path, _task_endpoint(routes[task.path]), methods=["POST"])
    for resource in service.resources:
        router.add_api_route(
            resource.path, _resource_endpoint(resource, calls, host), methods=[resource.verb]
        )
    return router


def _task_endpoint(route: TaskRoute) -> Any:
    async def endpoint(request: Request) -> Response:
        scope = request.scope
        parameters = request.path_params if path_parameters(route.task.path) else None
        exchange = Exchange.of(scope)
        return RawResponse(await route(exchange, request.receive, scope["query_string"], parameters))

    return endpoint


def _resource_endpoint(resource: Resource, calls: CallReader, host: Host) -> Any:
    async def endpoint(request: Request) -> Response:
        tenant = calls.authenticate(Exchange.of(request.scope))
        answer = await resource.handle(host, request.path_params, tenant)
        if answer is None:
            return Response(status_code=204)
        return RawResponse(answer_reply(answer))

    return endpoint
