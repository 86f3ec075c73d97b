"""Jobs, that is long work, as the REST and gRPC routes use them: submit, look, watch, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from nonet.jobs.async_store import AsyncStore
from nonet.jobs.completions import Completions
from nonet.jobs.files import JobFiles
from nonet.jobs.job import Job, JobState, NewJob, Page
from nonet.jobs.job_records import unknown_job
from nonet.jobs.policy import JobPolicy
from nonet.jobs.request_parameters import PageQuery
from nonet.jobs.result_files import ResultFile, result_file
from nonet.jobs.store_contract import JobStore, OutcomeUnknown
from nonet.jobs.stuck_jobs import StuckJobs
from nonet.jobs.supervisor import Supervisor, WorkerCommand
from nonet.jobs.wake_loop import WakeLoop
from nonet.jobs.webhook_policy import WebhookPolicy
from nonet.jobs.webhooks import Webhooks
from nonet.jobs.worker_registry import WorkerRegistry
from nonet.runtime.errors import InsufficientStorage, InvalidArgument, ServingError, Unavailable

logger = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_LOOK_SECONDS = 0.25
_SILENCE_SECONDS = 10.0
_MAX_WATCHERS = 256
_TROUBLE_SECONDS = 5.0


class Jobs:
    """Start it, :meth:`stop` it. To be started inside the event loop it is to run in.

    Args:
        store: keeps the jobs.
        files: keeps their files.
        command: how workers are started.
        policy: limits.
        webhooks: which webhooks are allowed, None for none.
        shared: whether processes on other machines use the store too.
        serves: whether this one serves what is published in the model repository.
        works_only: whether this one only works for others, and leaves it to them to remove what is kept no
            longer.

    Attributes:
        files: the files of jobs.
        registry: who can do which work.
        stuck: the jobs that nobody can take.
        supervisor: the workers of this process.
        webhooks: who is told of the ends of jobs.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        command: WorkerCommand,
        policy: JobPolicy,
        webhooks: WebhookPolicy | None = None,
        *,
        shared: bool = False,
        serves: bool = False,
        works_only: bool = False,
    ) -> None:
        self._store = AsyncStore(store, shared=shared)
        self._policy = policy
        self._completions = Completions(self._store, self._ended)
        self._durability = WakeLoop(
            "asking what the store promises", self._warn_of_durability, _TROUBLE_SECONDS
        )
        self._closing = asyncio.Event()
        self._changes: set[asyncio.Event] = set()
        self._submits: set[asyncio.Task[tuple[Job, bool]]] = set()
        self._counts: Mapping[JobState, int] = dict.fromkeys(JobState, 0)
        self.files = files
        self.stuck = StuckJobs(self._store)
        self.webhooks = Webhooks(self._store, webhooks or WebhookPolicy(), self._completions.settled)
        self.supervisor = Supervisor(
            self._store,
            files,
            command,
            policy,
            looked=self._looked,
            takes=lambda: self.registry.available,
            tidies=not works_only,
        )
        self.registry = WorkerRegistry(
            self._store,
            files,
            command,
            works=policy.concurrency > 0,
            serves=serves,
            eager=works_only or shared,  # they may work for others, or others for them
            shared=shared,
            changed=self.supervisor.loop.wake,
        )

    # -- life -----------------------------------------------------------------------------------

    async def open(self, uses: Mapping[str, Callable[[Job], Awaitable[None]]] | None = None) -> None:
        """To be called before this process looks for what jobs have brought about.

        Args:
            uses: by kind, what is awaited when jobs have succeeded, here or elsewhere, with the last of them;
                callers see them succeed when it has returned. Other jobs are seen as they are.
        """
        self._completions.uses = uses or {}
        await self._completions.open()

    async def start(self) -> None:
        """Go on with the jobs that wait and look after those that run."""
        self._completions.loop.start(None)
        self.supervisor.loop.start()
        self.webhooks.start()
        self.registry.start()
        self._durability.start()

    async def stop(self, seconds: float) -> None:
        """Start no more jobs, let the workers write their checkpoints and end, at most ``seconds``; what runs
        waits for the next start. Jobs can still be submitted and looked at, until :meth:`close`."""
        self._closing.set()  # every watch ends: callers watch on elsewhere
        self._changed()
        await self._durability.cancel()
        await self.registry.stop()
        await asyncio.gather(self.supervisor.stop(seconds), self.webhooks.stop(seconds))
        await self._completions.loop.cancel()

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def by_state(self) -> Mapping[str, int]:
        """Number of jobs in each state, as of the last look."""
        return {state.value: count for state, count in self._counts.items()}

    # -- callers --------------------------------------------------------------------------------

    async def able(self, kind: str) -> None:
        """As :meth:`WorkerRegistry.able`; Unavailable also when the server is leaving."""
        if self._closing.is_set():
            raise Unavailable("the server is draining; try another one", code="DRAINING")
        await self.registry.able(kind)

    async def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Queue a job whose files lie in its folder; the job, and whether it is a new one.

        The folder is removed if it is not. A caller that leaves meanwhile changes nothing: the job is queued,
        whole, or it is not. Raises as :meth:`JobStore.submit`, and InvalidArgument for a webhook that is not
        allowed.
        """
        submitting = asyncio.create_task(self._submit(new))
        self._submits.add(submitting)
        submitting.add_done_callback(self._submits.discard)
        return await asyncio.shield(submitting)

    async def _submit(self, new: NewJob) -> tuple[Job, bool]:
        keep = False
        try:
            if new.webhook:
                self.webhooks.policy.target(new.webhook)
            job, keep = await self._store.call(lambda store: store.submit(new, self._policy))
        except OutcomeUnknown:
            keep = True  # if there is no such job the folder is swept later
            raise
        finally:
            if not keep:
                await asyncio.to_thread(self.files.remove, new.id)
        self.registry.loop.wake()
        self.supervisor.loop.wake()
        return self._completions.shown(job), keep

    async def get(self, job: str, tenant: str) -> Job:
        """Raises NotFound for a job that is not there, or another tenant's."""
        _check_id(job)
        return self._completions.shown(await self._store.call(lambda store: store.get(job, tenant)))

    async def result(self, job: str, tenant: str) -> ResultFile:
        """The file that a job has made. Raises NotFound for a job that is not there, another tenant's, or one
        whose kind makes no file, Conflict for one that has not succeeded."""
        _check_id(job)
        # The file is there with the job's end, whatever this process has still to load.
        return result_file(await self._store.call(lambda store: store.get(job, tenant)), self.files)

    async def page(self, tenant: str, limits: PageQuery) -> Page:
        """A tenant's jobs, the newest first. Raises NotFound for an unknown ``after``."""
        if limits.after:
            _check_id(limits.after)
        page = await self._store.call(
            lambda store: store.page(tenant, states=limits.states, after=limits.after, limit=limits.limit)
        )
        return Page(tuple(map(self._completions.shown, page.jobs)), page.more)

    async def active(self, kind: str, subject: str) -> Job | None:
        """A job of this kind on this subject that has not ended, whoever's it is."""
        return await self._store.call(lambda store: store.active(kind, subject))

    async def cancel(self, job: str, tenant: str) -> Job:
        """Cancel: a job that waits is cancelled at once, one that runs as soon as its worker has stopped.

        Raises NotFound, Conflict (``JOB_ENDED``) for one that has succeeded or failed.
        """
        _check_id(job)
        cancelled = await self._store.call(lambda store: store.cancel(job, tenant))
        await asyncio.to_thread(self.files.settle, job, cancelled.state)
        self.supervisor.loop.wake()
        self.webhooks.loop.wake()
        self._changed()
        return cancelled

    async def watch(self, job: str, tenant: str, after: int = 0) -> AsyncIterator[Job | None]:
        """The job whenever it has changed since revision ``after``, until it has ended; None now and then
        when nothing happens, so that a connection can be kept open.

        While the store is away nothing happens. The iterator also ends, early, when the server leaves. Raises
        NotFound, Unavailable (too many watch), InvalidArgument for a revision that the job does not have yet.
        """
        if len(self._changes) >= _MAX_WATCHERS:
            raise Unavailable("too many callers watch jobs; retry later", code="OVERLOADED", retry_after=5.0)
        change = asyncio.Event()
        self._changes.add(change)
        try:
            silent, found = 0.0, await self.get(job, tenant)
            if not 0 <= after <= found.revision:
                raise InvalidArgument(f"the job has no revision {after}", param="after_revision")
            while True:
                if found.revision > after:
                    after, silent = found.revision, 0.0
                    yield found
                elif silent >= _SILENCE_SECONDS:
                    silent = 0.0
                    yield None
                if found.state.ended or self._closing.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await change.wait()
                silent += _LOOK_SECONDS
                change.clear()
                with contextlib.suppress(Unavailable, InsufficientStorage):  # the store comes back
                    found = await self.get(job, tenant)
        finally:
            self._changes.discard(change)

    # -- inside ---------------------------------------------------------------------------------

    def _changed(self) -> None:
        for change in self._changes:
            change.set()

    def _ended(self) -> None:
        self.supervisor.tidy_soon()
        self._changed()

    async def _warn_of_durability(self) -> None:
        """Warn the operator of what the store does not promise, once it can be asked."""
        for concern in await self._store.call(lambda store: store.durability_warnings()):
            logger.warning("%s", concern)

    async def _looked(self) -> None:
        """Bring the counts up to date; they stay as they were while the store cannot be read."""
        with contextlib.suppress(ServingError):
            self._counts = await self._store.call(lambda store: store.counts())
            if self._counts[JobState.QUEUED] or self._counts[JobState.RUNNING]:
                self.registry.announce_soon()
            if self._counts[JobState.QUEUED] or self.stuck.counts():
                await self.stuck.look()
        self._completions.loop.wake()
        self.webhooks.loop.wake()
        self._changed()


def _check_id(job: str) -> None:
    if _ID.fullmatch(job) is None:
        raise unknown_job()
