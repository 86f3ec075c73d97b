"""Jobs, that is long work, as the REST and gRPC routes use them: submit, look, watch, cancel.

The store blocks, so its calls run in threads of their own. For SQLite that is one: with that the gateway is
one writer, and its workers, with a write or two a second each, are the only others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nonet.jobs.capabilities import Capabilities
from nonet.jobs.completions import Completions
from nonet.jobs.files import JobFiles
from nonet.jobs.incoming_uploads import IncomingUploads
from nonet.jobs.job import Job, JobState, NewJob, Page
from nonet.jobs.policy import JobPolicy
from nonet.jobs.request_parameters import PageQuery
from nonet.jobs.result_files import ResultFile, result_file
from nonet.jobs.shared_folder import SharedFolder
from nonet.jobs.store_contract import JobStore, OutcomeUnknown
from nonet.jobs.stuck_jobs import StuckJobs
from nonet.jobs.supervisor import Supervisor, WorkerCommand
from nonet.jobs.webhook_policy import WebhookPolicy
from nonet.jobs.webhooks import Webhooks
from nonet.jobs.worker_registry import WorkerRegistry
from nonet.runtime.errors import (
    InsufficientStorage,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    ServingError,
    Unavailable,
)

__all__ = ["Jobs"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_LOOK_SECONDS = 0.25
_SILENCE_SECONDS = 10.0
_MAX_WATCHERS = 256
_SHARED_THREADS = 4
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
        offers: whether others must know what this one does before there is work: they may work for it, or it
            for them.
        serves: whether this one serves what is published in the model repository.
        tidies: whether this one removes what is kept no longer.

    Attributes:
        files: the files of jobs.
        arrivals: the files of uploads that are to become jobs.
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
        offers: bool = False,
        serves: bool = False,
        tidies: bool = True,
    ) -> None:
        self._store = store
        self._policy = policy
        self._command = command
        self._threads = ThreadPoolExecutor(_SHARED_THREADS if shared else 1, thread_name_prefix="jobs")
        self._capabilities = Capabilities(command.words)
        self._supervisor: Supervisor | None = None
        self._completions = Completions(store, self._blocking, self._ended)
        self._webhooks = Webhooks(
            store, self._blocking, webhooks or WebhookPolicy(), self._completions.settled
        )
        self._folder = SharedFolder(store, files, self._blocking, command.state, shared=shared)
        self._registry = WorkerRegistry(
            store,
            self._blocking,
            self._capabilities if policy.concurrency else None,
            command.repository,
            serves=serves,
            eager=offers,
            check=self._folder.check,
            changed=self._wake_supervisor,
        )
        self._stuck = StuckJobs(store, self._blocking)
        self._tidies = tidies
        self._durability: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._changes: set[asyncio.Event] = set()
        self._submits: set[asyncio.Task[tuple[Job, bool]]] = set()
        self._counts: dict[JobState, int] = dict.fromkeys(JobState, 0)
        self.files = files
        self.incoming_uploads = IncomingUploads(files)

    # -- life -----------------------------------------------------------------------------------

    async def open(self, uses: Mapping[str, Callable[[Job], Awaitable[None]]] | None = None) -> None:
        """To be called before this process looks for what jobs have brought about.

        Args:
            uses: by kind, what is awaited when jobs have succeeded, here or elsewhere, with the last of them;
                callers see them succeed when it has returned. Other jobs are seen as they are.
        """
        self._completions.uses = uses or {}
        await self._completions.open()

    async def foreign(self, kinds: Collection[str]) -> str:
        """See :meth:`WorkerRegistry.foreign`; "" while the store cannot be asked."""
        with contextlib.suppress(ServingError):
            return await self._registry.foreign(kinds)
        return ""

    async def start(self) -> None:
        """Go on with the jobs that wait and look after those that run."""
        self._supervisor = Supervisor(
            self._store,
            self.files,
            self._blocking,
            self._command,
            self._policy,
            looked=self._look,
            takes=lambda: self._registry.available,
            tidies=self._tidies,
        )
        self._completions.start()
        self._supervisor.start()
        self._webhooks.start()
        self._registry.start()
        self._durability = asyncio.create_task(self._warn_of_durability(), name="job-store-durability")

    def close_streams(self) -> None:
        """End every :meth:`watch`: the process is about to leave, callers watch on elsewhere."""
        self._closing.set()
        self._changed()

    async def stop(self, seconds: float) -> None:
        """Start no more jobs, let the workers write their checkpoints and end, at most ``seconds``; what runs
        waits for the next start. Jobs can still be submitted and looked at, until :meth:`close`."""
        self.close_streams()
        if self._durability is not None:
            self._durability.cancel()
        await self._registry.stop()
        if self._supervisor is not None:
            await asyncio.gather(self._supervisor.stop(seconds), self._webhooks.stop(seconds))
        await self._completions.stop()

    def close(self) -> None:
        """Let go of the store."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    # -- facts for metrics ----------------------------------------------------------------------

    def by_state(self) -> Mapping[str, int]:
        """Number of jobs in each state, as of the last look."""
        return {state.value: count for state, count in self._counts.items()}

    def webhooks_by_state(self) -> Mapping[str, int]:
        """Number of webhooks in each state, as of the last look."""
        return self._webhooks.by_state()

    def unserved(self) -> Mapping[tuple[str, str], int]:
        """Number of jobs that wait for nobody, by kind and what is missing, as of the last look."""
        return self._stuck.counts()

    @property
    def workers(self) -> int:
        """Worker processes that run now."""
        return 0 if self._supervisor is None else self._supervisor.workers

    # -- callers --------------------------------------------------------------------------------

    async def able(self, kind: str) -> None:
        """Raises NotImplementedHere, saying what to install, if only this process has workers and they cannot
        do this kind of work; Unavailable if nobody who can was heard of, that cannot be found out now, or the
        server is leaving."""
        if self._closing.is_set():
            raise Unavailable("the server is draining; try another one", code="DRAINING")
        await self._folder.check()
        refusal: ServingError = Unavailable(
            "nobody who can do this work was heard of in the last minute; retry later",
            code="NO_WORKER",
            retry_after=10.0,
        )
        if self._policy.concurrency:
            try:
                missing = await self._capabilities.missing(kind)
            except Unavailable as error:
                refusal = error
            else:
                if not missing:
                    return
                refusal = NotImplementedHere(missing, code="EXTRA_MISSING")
        if not await self._blocking(lambda: self._store.is_available(kind)):
            raise refusal

    async def publishing(self) -> tuple[str, ...]:
        """See :meth:`WorkerRegistry.publishing`."""
        return await self._registry.publishing()

    async def check_publishing(self, model: str = "") -> None:
        """Raises InsufficientStorage (``REPOSITORY_READ_ONLY``) if nobody who would do the work could publish
        what comes of it."""
        if self._policy.concurrency:
            await self._registry.check_publishing(model)

    def check_webhook(self, url: str) -> None:
        """Raises InvalidArgument for a webhook that is not allowed, as :meth:`submit` would."""
        self._webhooks.check(url)

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
                self._webhooks.check(new.webhook)
            job, fresh = await self._blocking(lambda: self._store.submit(new, self._policy))
            keep = fresh
        except OutcomeUnknown:
            keep = True  # if there is no such job the folder is swept later
            raise
        finally:
            if not keep:
                await asyncio.to_thread(self.files.remove, new.id)
        self._registry.announce_now()
        self._wake_supervisor()
        return self._completions.shown(job), fresh

    async def get(self, job: str, tenant: str) -> Job:
        """Raises NotFound for a job that is not there, or another tenant's."""
        _check_id(job)
        return self._completions.shown(await self._blocking(lambda: self._store.get(job, tenant)))

    async def result(self, job: str, tenant: str) -> ResultFile:
        """The file that a job has made. Raises NotFound for a job that is not there, another tenant's, or one
        whose kind makes no file, Conflict for one that has not succeeded."""
        _check_id(job)
        # The file is there with the job's end, whatever this process has still to load.
        return result_file(await self._blocking(lambda: self._store.get(job, tenant)), self.files)

    async def page(self, tenant: str, limits: PageQuery) -> Page:
        """A tenant's jobs, the newest first. Raises NotFound for an unknown ``after``."""
        if limits.after:
            _check_id(limits.after)
        page = await self._blocking(
            lambda: self._store.page(tenant, states=limits.states, after=limits.after, limit=limits.limit)
        )
        return Page(tuple(map(self._completions.shown, page.jobs)), page.more)

    async def active(self, kind: str, subject: str) -> Job | None:
        """A job of this kind on this subject that has not ended, whoever's it is."""
        return await self._blocking(lambda: self._store.active(kind, subject))

    async def cancel(self, job: str, tenant: str) -> Job:
        """Cancel: a job that waits is cancelled at once, one that runs as soon as its worker has stopped.

        Raises NotFound, Conflict (``JOB_ENDED``) for one that has succeeded or failed.
        """
        _check_id(job)
        cancelled = await self._blocking(lambda: self._store.cancel(job, tenant))
        if cancelled.state.ended:
            await asyncio.to_thread(self.files.remove, job)
        self._wake_supervisor()
        self._webhooks.wake()
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

    async def _blocking(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:
            if self._closing.is_set():
                raise Unavailable("the server is shutting down", code="SHUTTING_DOWN") from error
            raise

    def _changed(self) -> None:
        for change in self._changes:
            change.set()

    def _ended(self) -> None:
        if self._supervisor is not None:
            self._supervisor.tidy_soon()
        self._changed()

    def _wake_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wake()

    async def _warn_of_durability(self) -> None:
        """Warn the operator of what the store does not promise, once it can be asked."""
        while True:
            with contextlib.suppress(ServingError):
                for concern in await self._blocking(self._store.durability_warnings):
                    logger.warning("%s", concern)
                return
            await asyncio.sleep(_TROUBLE_SECONDS)

    async def _look(self) -> None:
        """Bring the counts up to date; they stay as they were while the store cannot be read."""
        with contextlib.suppress(ServingError):
            self._counts = dict(await self._blocking(self._store.counts))
            if self._counts[JobState.QUEUED] or self._counts[JobState.RUNNING]:
                self._registry.announce_soon()
            if self._counts[JobState.QUEUED] or self._stuck.counts():
                await self._stuck.look()
        self._completions.wake()
        self._webhooks.wake()
        self._changed()


def _check_id(job: str) -> None:
    if _ID.fullmatch(job) is None:
        raise NotFound("there is no such job", param="job", code="JOB_NOT_FOUND")
