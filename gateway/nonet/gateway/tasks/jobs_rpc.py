"""``nonet.v1.Jobs``: the typed form of ``/v1/jobs``, with the same answers."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict

from nonet.gateway.grpc.rpc import Rpc, parse
from nonet.jobs import DEFAULT_PAGE, Job, Jobs, PageQuery, read_states
from nonet.runtime.errors import Unavailable
from nonet.runtime.oip.messages import message

_PIECE = 1 << 20


class JobCalls:
    """The handlers of the service."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def get_job(self, request: Any, rpc: Rpc) -> Any:
        return job_message(await self._jobs.get(request.id, rpc.authenticate()))

    async def list_jobs(self, request: Any, rpc: Rpc) -> Any:
        tenant = rpc.authenticate()
        limits = PageQuery(request.limit or DEFAULT_PAGE, request.after, read_states(list(request.states)))
        page = await self._jobs.page(tenant, limits)
        return message("nonet.v1.ListJobsResponse")(jobs=map(job_message, page.jobs), has_more=page.more)

    async def cancel_job(self, request: Any, rpc: Rpc) -> Any:
        return job_message(await self._jobs.cancel(request.id, rpc.authenticate()))

    async def watch_job(self, raw: bytes, rpc: Rpc) -> None:
        """Writes the job whenever it has changed. Raises ServingError."""
        tenant = rpc.authenticate()
        request = parse(message("nonet.v1.WatchJobRequest"), raw)
        ended = False
        async for job in self._jobs.watch(request.id, tenant, request.after_revision):
            if job is not None:
                ended = job.state.ended
                await rpc.context.write(job_message(job).SerializeToString())
        if not ended and not (await self._jobs.get(request.id, tenant)).state.ended:
            raise Unavailable("the server is draining; watch the job elsewhere", code="DRAINING")

    async def read_result(self, raw: bytes, rpc: Rpc) -> None:
        """Writes the file that a job has made, in pieces. Raises ServingError."""
        tenant = rpc.authenticate()
        found = await self._jobs.result(parse(message("nonet.v1.ReadResultRequest"), raw).id, tenant)
        async with contextlib.aclosing(found.pieces(_PIECE)) as pieces:
            async for data in pieces:
                await rpc.context.write(message("nonet.v1.ResultPiece")(data=data).SerializeToString())


def job_message(job: Job) -> Any:
    """A job as a message."""
    fields = dataclasses.asdict(job)
    fields |= {f"{name}_at": fields[name] for name in ("created", "started", "ended")}
    for name, found in (("result_json", job.result), ("partial_json", job.partial)):
        fields[name] = None if found is None else orjson.dumps(found).decode()
    fields["revision"] = max(job.revision, 0)
    if job.webhook is not None:
        fields["webhook"]["last_error"] = job.webhook.error
    return ParseDict(fields, message("nonet.v1.Job")(), ignore_unknown_fields=True)
