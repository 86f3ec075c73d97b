"""Requests that become jobs, for both faces: judged, read, accepted by their service, and submitted.

What is asked for is pinned when it is submitted: a job works with the model version that was chosen then,
however long it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.tasks.fields import FieldReader
from nonet.gateway.tasks.host import GatewayHost
from nonet.jobs import Job, Jobs, NewJob, new_job_id
from nonet.runtime.errors import Conflict, PermissionDenied, Unprocessable
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.task import Accepted, ServiceLimits, Task, Upload, Work

logger = logging.getLogger(__name__)

_READERS = 2
_LONGEST_SUBJECT = 80
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """A request that is to become a job.

    Args:
        path: its file.
        values: the fields in the body beside it, as sent, ``webhook`` among them.
        filename: what the caller calls the file; "" if nothing.
        tenant: whose it is.
        key: idempotency key, "" for none.
        query: fields that count where the body has none of that name.
        floor: the least quality of the model, None for any.
    """

    path: Path
    values: Mapping[str, Any]
    filename: str
    tenant: str
    key: str
    query: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    floor: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """All fields."""
        return {**self.query, **self.values}


class Submits:
    """See the module's text.

    Args:
        plane: knows the models.
        jobs: does the work.
        host: lends the repository.
        limits: the operator's.
    """

    def __init__(self, plane: DataPlane, jobs: Jobs, host: GatewayHost, limits: ServiceLimits) -> None:
        self.jobs = jobs
        self.limits = limits
        self._plane = plane
        self._host = host
        # Few at a time, also when their callers have left: each reads, and often writes, a whole upload.
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="uploads")
        self._submitting = asyncio.Lock()

    def largest(self, task: Task) -> int:
        """Bytes that the file of a request may have."""
        own = 0 if task.file is None else task.file.max_bytes
        return min(own, self.limits.upload_bytes) if own else self.limits.upload_bytes

    async def check(self, work: Work, values: Mapping[str, Any], tenant: str) -> None:
        """Judge what can be judged before the file is read: the subject and the webhook.

        Raises InvalidArgument for a name that cannot be one or a webhook that is not allowed,
        PermissionDenied for the model of another tenant, InsufficientStorage if nobody could publish what
        comes of the work.
        """
        subject, webhook = values.get(work.subject), values.get("webhook")
        if work.publishes is not None:
            model = ""
            if isinstance(subject, str):
                await self._host.check_yours(work, subject, tenant)
                model = work.publishes(subject)
            await self.jobs.registry.check_publishing(model)
        if webhook is not None and not isinstance(webhook, str):
            raise Unprocessable("field 'webhook' must be a text", param="webhook")
        if webhook:  # an empty one is none in a gRPC message; the HTTP face refuses it
            self.jobs.webhooks.policy.target(webhook)

    async def submit(self, task: Task, fields: FieldReader, sent: Submission) -> tuple[Job, bool]:
        """The job that a request becomes, and whether it is a new one.

        Raises what the service raises for the upload, what choosing a model and submitting a job raise, and
        as :meth:`check`.
        """
        work = task.work
        assert work is not None
        given = sent.given
        values = {name: value for name, value in given.items() if name != "webhook"}
        checked = None if work.checks_fields else fields.check(values)
        model = None
        if work.chooses_model:
            named = given.get("model") if checked is None else getattr(checked, "model", None)
            model = self._plane.router.choose(
                task.name, str(named or "auto"), deadline=None, floor=sent.floor
            )
        await self.check(work, given, sent.tenant)
        job, files = new_job_id(), self.jobs.files
        folder = await asyncio.to_thread(files.make_folder, job)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(asyncio.to_thread, files.remove, job)
            upload = Upload(
                sent.path,
                folder,
                given if work.checks_fields else values,
                checked,
                model,
                self._host.repository,
                self.limits,
                sent.query.keys() - sent.values.keys(),
            )
            accepted = await asyncio.get_running_loop().run_in_executor(
                self._readers, functools.partial(_accept, work, upload)
            )
            new = _new_job(task, job, sent, accepted)
            if work.publishes is None:
                undo.pop_all()  # from here on the folder is the job's
                return await self.jobs.submit(new)
            async with self._submitting:  # of two that want the same new name the first gets it
                await self._host.check_yours(work, new.subject, sent.tenant)
                await self.jobs.registry.check_publishing(work.publishes(new.subject))
                publishing = await self.jobs.registry.publishing()
                new = dataclasses.replace(new, requirements=(*new.requirements, *publishing))
                undo.pop_all()
                made, fresh = await self.jobs.submit(new)
        if fresh and sent.tenant:
            await self._check_first(work, made)
        return made, fresh

    async def settle(self, work: Work, job: Job) -> None:
        """A job that publishes has succeeded: load what it has published, which is nothing where its result
        has an empty ``version``."""
        if job.result is not None and job.result.get("version") == "":
            return
        await self._host.load()
        assert work.publishes is not None
        if not self._host.keeps(work.publishes(job.subject)):
            logger.error(
                "job %s has published '%s', which is not in this repository: all gateways and workers need "
                "one and the same",
                job.id,
                job.subject,
            )

    async def _check_first(self, work: Work, job: Job) -> None:
        """A submit through another gateway may have taken the new name at the same moment: the older of the
        two has it, the other job is cancelled. Raises PermissionDenied then."""
        try:
            await self._host.check_yours(work, job.subject, job.tenant)
        except PermissionDenied:
            with contextlib.suppress(Conflict):  # it has failed for that already
                await self.jobs.cancel(job.id, job.tenant)
            raise


def _new_job(task: Task, job: str, sent: Submission, accepted: Accepted) -> NewJob:
    assert task.work is not None
    spec = dict(accepted.spec)
    webhook = str(spec.pop("webhook", "") or sent.given.get("webhook") or "")
    subject = accepted.subject
    if task.work.publishes is None and not subject:
        kept = _UNPRINTABLE.sub("_", sent.filename)[:_LONGEST_SUBJECT]
        subject = kept or (task.file.noun if task.file else task.work.kind)
    return NewJob(
        id=job,
        kind=task.work.kind,
        subject=subject,
        tenant=sent.tenant,
        spec=spec,
        digest=accepted.digest,
        key=sent.key,
        webhook=webhook,
        requirements=accepted.requirements,
    )


def _accept(work: Work, upload: Upload) -> Accepted:
    with storage_errors():
        return work.accept(upload)
