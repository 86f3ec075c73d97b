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
from nonet.runtime.repository.ownership import may_change, owner_of
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.task import Accepted, ServiceLimits, Task, Upload, Work

__all__ = ["Submission", "Submits"]

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
    """

    path: Path
    values: Mapping[str, Any]
    filename: str
    tenant: str
    key: str
    query: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
        self._plane = plane
        self._jobs = jobs
        self._host = host
        self.limits = limits
        # Few at a time, also when their callers have left: each reads, and often writes, a whole upload.
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="uploads")
        self._submitting = asyncio.Lock()

    async def able(self, work: Work) -> None:
        """Raises NotImplementedHere, saying what to install, or Unavailable, if nobody can do the work, and
        InsufficientStorage if nobody could publish what comes of it."""
        await self._jobs.able(work.kind)
        if work.publishes is not None:
            await self._jobs.check_publishing()

    def receiving(self) -> contextlib.AbstractContextManager[Path]:
        """A file for an upload, gone when the block ends."""
        return self._jobs.incoming_uploads.receiving()

    async def check(self, work: Work, values: Mapping[str, Any], tenant: str) -> None:
        """Judge what can be judged before the file is read: the subject and the webhook.

        Raises InvalidArgument for a name that cannot be one or a webhook that is not allowed,
        PermissionDenied for the model of another tenant.
        """
        subject, webhook = values.get(work.subject), values.get("webhook")
        if work.publishes is not None and isinstance(subject, str):
            await self._check_yours(work, subject, tenant)
        if webhook is not None and not isinstance(webhook, str):
            raise Unprocessable("field 'webhook' must be a text", param="webhook")
        if webhook:  # an empty one is none in a gRPC message; the HTTP face refuses it
            self._jobs.check_webhook(webhook)

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
            model = self._plane.choose(task.name, getattr(checked, "model", None) or "auto", deadline=None)
        await self.check(work, given, sent.tenant)
        job = new_job_id()
        files = self._jobs.files
        folder = await asyncio.to_thread(files.make_folder, job)
        submitting = False
        try:
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
            spec = dict(accepted.spec)
            webhook = str(spec.pop("webhook", "") or given.get("webhook") or "")
            subject = accepted.subject
            if work.publishes is None:
                subject = (
                    subject
                    or _UNPRINTABLE.sub("_", sent.filename)[:_LONGEST_SUBJECT]
                    or (task.file.noun if task.file else work.kind)
                )
            new = NewJob(
                job,
                work.kind,
                subject,
                sent.tenant,
                spec,
                accepted.digest,
                sent.key,
                webhook,
                accepted.requirements,
            )
            if work.publishes is None:
                submitting = True  # from here on the folder is the job's
                return await self._jobs.submit(new)
            async with self._submitting:  # of two that want the same new name the first gets it
                await self._check_yours(work, subject, sent.tenant)
                publishing = await self._jobs.publishing()
                submitting = True
                new = dataclasses.replace(new, requirements=(*new.requirements, *publishing))
                made, fresh = await self._jobs.submit(new)
            if fresh and sent.tenant:
                await self._check_first(work, made)
            return made, fresh
        except BaseException:
            if not submitting:
                await asyncio.to_thread(files.remove, job)
            raise

    async def settle(self, work: Work, job: Job) -> None:
        """A job that publishes has succeeded: load what it has published."""
        await self._host.load()
        assert work.publishes is not None
        if not self._host.keeps(work.publishes(job.subject)):
            logger.error(
                "job %s has published '%s', which is not in this repository: all gateways and workers need "
                "one and the same",
                job.id,
                job.subject,
            )

    async def _check_yours(self, work: Work, subject: str, tenant: str) -> None:
        """Raises PermissionDenied for the model of another tenant: who published it, or will first."""
        assert work.publishes is not None
        model = work.publishes(subject)
        first = await self._jobs.active(
            work.kind, subject
        )  # asked first: if it ends now, what it left is seen
        owner = await asyncio.to_thread(owner_of, self._host.repository, model)
        if owner is None and first is not None:
            owner = first.tenant
        if not may_change(owner, tenant):
            raise work.not_yours(subject)
        await self._jobs.check_publishing(model)

    async def _check_first(self, work: Work, job: Job) -> None:
        """A submit through another gateway may have taken the new name at the same moment: the older of the
        two has it, the other job is cancelled. Raises PermissionDenied then."""
        try:
            await self._check_yours(work, job.subject, job.tenant)
        except PermissionDenied:
            with contextlib.suppress(Conflict):  # it has failed for that already
                await self._jobs.cancel(job.id, job.tenant)
            raise


def _accept(work: Work, upload: Upload) -> Accepted:
    with storage_errors():
        return work.accept(upload)
