"""The task API over gRPC: the typed services of ``nonet.v1``, with the same fields, checks and answers as
over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc

from nonet.gateway.core.upload_budget import Hold
from nonet.gateway.grpc.rpc import Handler, Rpc, RpcFace, parse, service
from nonet.gateway.tasks.asking import Asking, Question
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.fields import FieldReader, path_parameters
from nonet.gateway.tasks.jobs_rpc import job_message
from nonet.gateway.tasks.messages import fill, plain_values
from nonet.gateway.tasks.submits import Submission, Submits
from nonet.jobs import read_key
from nonet.runtime.errors import InvalidArgument, NotImplementedHere, PayloadTooLarge
from nonet.runtime.host import Host
from nonet.runtime.oip.messages import Method, message, methods
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.task import Blob, FilePart, Resource, Service, Task


def service_names(services: Iterable[Service]) -> list[str]:
    """The full names of the gRPC services, in order."""
    paths = [task.rpc for each in services for task in each.tasks]
    paths += [resource.rpc for each in services for resource in each.resources if resource.rpc]
    return list(dict.fromkeys(path.partition("/")[0] for path in paths))


def service_handlers(face: RpcFace, parts: FaceParts) -> list[grpc.GenericRpcHandler]:
    """All methods of all services. Raises ValueError for a method of a ``.proto`` that no task has, and for
    a task whose method is in none.

    Args:
        face: turns handlers into what a gRPC server registers.
        parts: what the faces share.
    """
    found: dict[str, grpc.RpcMethodHandler] = {}
    services = parts.services
    known = {f"{name}/{method.name}": method for name in service_names(services) for method in methods(name)}
    for task in (task for each in services for task in each.tasks):
        calls = TaskCalls(task, parts)
        for method in (known[path] for path in calls.paths):
            found[method.path] = calls.handler(face, method)
    for resource in (resource for each in services for resource in each.resources if resource.rpc):
        method = known[resource.rpc]
        handler = functools.partial(_resource, resource, parts.host, method)
        found[method.path] = face.unary(method.path, method.request, handler)
    return [
        service(name, {each.name: found[each.path] for each in methods(name) if each.path in found})
        for name in service_names(services)
    ]


class TaskCalls:
    """The methods of one task: its own, and the one that submits a job."""

    def __init__(self, task: Task, parts: FaceParts) -> None:
        self._task = task
        self._fields = FieldReader(task)
        self._plane = parts.plane
        self._asking = Asking(task, parts)
        self._submits = parts.submits
        self._disk = parts.disk
        name, _, _ = task.rpc.partition("/")
        self._submit_path = "" if task.work is None else f"{name}/{task.work.rpc}"
        self._stream_path = f"{name}/{task.stream_rpc}" if task.stream_rpc else ""

    @property
    def paths(self) -> tuple[str, ...]:
        """Full names of the methods."""
        return tuple(
            dict.fromkeys(path for path in (self._task.rpc, self._submit_path, self._stream_path) if path)
        )

    def handler(self, face: RpcFace, method: Method) -> grpc.RpcMethodHandler:
        """One of the methods as a server registers it."""
        if method.path == f"/{self._submit_path}":
            if method.client_streaming:
                return face.collecting(method.path, functools.partial(self._submit_pieces, method))
            submit = functools.partial(self._submit_whole, method)
            return face.unary(method.path, None, submit, admit=lambda _: self._plane.admit())

        def admit(rpc: Rpc) -> contextlib.AbstractContextManager[None]:
            """Let a call in, or refuse it, by its metadata alone."""
            return self._asking.admit(rpc.read())

        if method.server_streaming:
            stream = functools.partial(self._stream, method)
            return face.stream(method.path, stream, request_streaming=False, admit=admit)
        handler: Handler = functools.partial(self._unary, method)
        return face.unary(method.path, None, handler, admit=admit)

    # -- answers --------------------------------------------------------------------------------

    async def _unary(self, method: Method, raw: bytes, rpc: Rpc) -> Any:
        started = time.perf_counter()
        question = await self._question(method, raw, rpc)
        inferring = time.perf_counter()
        response = await self._asking.response(question)
        inferred = time.perf_counter()
        rpc.model = response.model
        answer = self._asking.answer(question, response)
        reply = method.response()
        fill(reply, {"model": question.info.network or question.info.name, "version": response.version})
        if isinstance(answer, Blob):
            fill(reply, {answer.field: answer.content, "content_type": answer.content_type, **answer.facts})
        else:
            known = self._task.to_message(answer)
            fill(reply, {name: value for name, value in known.items() if name not in ("model", "version")})
        placement = self._asking.placement(question, response)
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred, placement)
        return reply

    async def _stream(self, method: Method, raw: bytes, rpc: Rpc) -> None:
        question = await self._question(method, raw, rpc)
        rpc.explain(question.placement)
        async with contextlib.aclosing(self._asking.events(question)) as answers:
            async for response, event in answers:
                rpc.model = response.model
                said = {"version": response.version, **self._task.to_message(event.data)}
                reply = fill(method.response(), said)
                await rpc.context.write(reply.SerializeToString())

    async def _question(self, method: Method, raw: bytes, rpc: Rpc) -> Question:
        task = self._task
        values, files = self._all_values(method, raw)
        if task.work is not None and "webhook" in values:
            _, _, submit = self._submit_path.partition("/")
            raise InvalidArgument(f"webhook goes with {submit}; {method.name} makes no job", param="webhook")
        for part, content in zip(task.parts, files, strict=True):
            if not content and not part.optional:
                raise _empty(part)
        fields = self._fields.check(values)
        named = {name: str(getattr(fields, name)) for name in path_parameters(task.path)}
        info = await self._asking.find(named)
        file = files if task.files else b"".join(files)
        return self._asking.question(fields, file, rpc.read(), info)

    def _check_size(self, raw: bytes) -> None:
        limit = self._task.max_bytes
        if limit and len(raw) > limit:
            raise PayloadTooLarge(f"the message is larger than {limit} bytes", code="BODY_TOO_LARGE")

    def _all_values(self, method: Method, raw: bytes) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """The fields of a message, and the files in it, empty where one is missing."""
        self._check_size(raw)
        values = self._task.from_message(_plain(method, raw))
        return values, tuple(values.pop(part.name, b"") for part in self._task.parts)

    def _values(self, method: Method, raw: bytes) -> tuple[dict[str, Any], bytes]:
        """The fields of a message, and the one file in it."""
        values, files = self._all_values(method, raw)
        return values, b"".join(files)

    def _split(self, sent: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The task's fields, and the file, of a message's values."""
        values = self._task.from_message(sent)
        file: bytes = b"" if self._task.file is None else values.pop(self._task.file.name, b"")
        return values, file

    # -- jobs -----------------------------------------------------------------------------------

    async def _submit_whole(self, method: Method, raw: bytes, rpc: Rpc) -> Any:
        """A job of one message."""
        submits, tenant, key = await self._able(rpc)
        with self._disk.open() as hold, submits.jobs.files.receiving() as path:
            self._check_size(raw)
            sent = await asyncio.to_thread(_plain, method, raw)
            assert self._task.work is not None
            await submits.check(self._task.work, sent, tenant)
            values, file = await asyncio.to_thread(self._split, sent)
            if not file:
                assert self._task.file is not None
                raise _empty(self._task.file)
            hold.take(len(file))
            with storage_errors():
                await asyncio.to_thread(path.write_bytes, file)
            return await self._submitted(method, submits, Submission(path, values, "", tenant, key))

    async def _submit_pieces(self, method: Method, messages: AsyncIterator[bytes], rpc: Rpc) -> Any:
        """A job of many messages: the first says what is wanted, the file's bytes of all are the file."""
        submits, tenant, key = await self._able(rpc)
        with self._disk.open() as hold, submits.jobs.files.receiving() as path:
            values = await self._spool(method, messages, path, hold, submits.largest(self._task))
            return await self._submitted(method, submits, Submission(path, values, "", tenant, key))

    async def _able(self, rpc: Rpc) -> tuple[Submits, str, str]:
        if self._submits is None:
            raise NotImplementedHere("there are no jobs here")
        call = rpc.read()
        key = read_key(rpc.request_context.given(b"idempotency-key"))
        assert self._task.work is not None
        await self._submits.jobs.able(self._task.work.kind)
        return self._submits, call.tenant, key

    async def _submitted(self, method: Method, submits: Submits, submission: Submission) -> Any:
        job, fresh = await submits.submit(self._task, self._fields, submission)
        return method.response(job=job_message(job), replayed=not fresh)

    async def _spool(
        self, method: Method, messages: AsyncIterator[bytes], path: Path, hold: Hold, limit: int
    ) -> Mapping[str, Any]:
        """Write the file as it arrives; the fields of the first message.

        Raises PayloadTooLarge for more than ``limit`` bytes, Unavailable when all uploads together take too
        much of the disk, InsufficientStorage or Unavailable when it is full, InvalidArgument for a file or
        a piece of it that is empty.
        """
        file = self._task.file
        assert file is not None
        values: Mapping[str, Any] | None = None
        size = 0
        with storage_errors(), path.open("xb") as target:
            async for encoded in messages:
                found, piece = self._values(method, encoded)
                if values is None:
                    values = found
                elif not piece:
                    raise InvalidArgument("every message after the first must bring bytes", param=file.name)
                size += len(piece)
                if size > limit:
                    raise PayloadTooLarge(f"the {file.noun} is larger than {limit} bytes", param=file.name)
                hold.take(len(piece))
                await asyncio.to_thread(target.write, piece)
                # What is on the disk is in memory no longer, however late the next message comes.
                del encoded, found, piece
        if size == 0 or values is None:
            raise _empty(file)
        return values


async def _resource(resource: Resource, host: Host, method: Method, request: Any, rpc: Rpc) -> Any:
    tenant = rpc.authenticate()
    parameters = {name: getattr(request, name) for name in path_parameters(resource.path)}
    answer = await resource.handle(host, parameters, tenant)
    reply = message(method.response.DESCRIPTOR.full_name)()
    return reply if answer is None or isinstance(answer, Blob) else fill(reply, answer)


def _plain(method: Method, raw: bytes) -> dict[str, Any]:
    return plain_values(parse(method.request, raw))


def _empty(part: FilePart) -> InvalidArgument:
    name, noun = part.name, part.noun
    article = "an" if noun[0] in "aeiou" else "a"
    return InvalidArgument(
        f"{name} is empty; send the bytes of {article} {noun}", param=name, code=part.empty_code
    )
