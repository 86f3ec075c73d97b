"""The supervisor of the workers: starts a process for each job and watches over it.

    a job waits, a place is free -> claim it -> start a worker with its id -> watch -> see what became of it

A worker that takes too much memory or time, or that does not stop when it is told to, is killed and its job
ends with the reason. When a worker dies its job waits again: it goes on from its checkpoint, and after too
many deaths fails with the reason. Jobs of workers that other processes started are taken over when their
leases run out. No worker is there while no job is: an idle gateway costs no memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

import psutil

from nonet.jobs.async_store import AsyncStore
from nonet.jobs.child_process import Child, start_child
from nonet.jobs.files import JobFiles
from nonet.jobs.job import Claim, JobState, error_of
from nonet.jobs.policy import JobPolicy
from nonet.jobs.result_files import sweep_results
from nonet.jobs.store_contract import JobStore
from nonet.jobs.wake_loop import WakeLoop
from nonet.runtime.errors import DeadlineExceeded, InsufficientStorage, ServingError

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5
_IDLE_SECONDS = 1.0
"""Seconds in which a job that another process has queued is noticed."""
_TIDY_SECONDS = 600.0
_TIDY_SOON = 60.0
"""Seconds from one look for what is kept no longer to the next, at least, when jobs have ended."""
_SLACK = 1 << 30
"""Memory that a worker may reserve beyond its limit before an allocation fails in it."""


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How a worker process is started.

    Args:
        words: the command, to which what the job needs is added as flags.
        state: the state folder.
        repository: the model repository that results are published in.
        log_format: text or json.
        environment: variables on top of this process's own: what nobody may read on a command line.
    """

    words: tuple[str, ...]
    state: Path
    repository: Path
    log_format: str = "text"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def line(self, job: str, owner: str, policy: JobPolicy) -> list[str]:
        return [
            *self.words,
            *("--state", str(self.state.absolute()), "--repository", str(self.repository.absolute())),
            *("--job", job, "--owner", owner, "--parent", str(os.getpid())),
            *("--lease-seconds", str(policy.lease_seconds), "--stop-seconds", str(policy.stop_seconds)),
            *("--memory-bytes", str(policy.max_memory_bytes + _SLACK), "--nice", str(policy.nice)),
            *("--log-format", self.log_format),
        ]


class _Worker:
    """One process and the job it is for."""

    def __init__(self, claim: Claim, owner: str, process: Child) -> None:
        self.job = claim.job.id
        self.owner = owner
        self.process = process
        self.before = claim.spent
        self.started = time.monotonic()
        self.told: float | None = None
        self.verdict: ServingError | None = None

    @property
    def running_seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def memory(self) -> int:
        """Resident bytes of the process and its children; 0 when it is gone."""
        total = 0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for each in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += each.memory_info().rss
        return total


@dataclasses.dataclass(eq=False)
class Supervisor:
    """Start its ``loop``, wake that when a job waits or was cancelled; :meth:`stop` it.

    Args:
        store: where the jobs are.
        files: their folders.
        command: how workers are started.
        policy: limits.
        looked: awaited after each look.
        takes: what jobs may require that are taken now; see :mod:`.requirements`.
        tidies: whether to remove what is kept no longer.
    """

    store: AsyncStore
    files: JobFiles
    command: WorkerCommand
    policy: JobPolicy
    _: dataclasses.KW_ONLY
    looked: Callable[[], Awaitable[None]]
    takes: Callable[[], Collection[str]]
    tidies: bool

    def __post_init__(self) -> None:
        self.loop = WakeLoop("looking after the jobs", self._look, _WATCH_SECONDS)
        self._workers: set[_Worker] = set()
        self._next_owner = secrets.token_hex(8)
        self._tidied = float("-inf")
        self._tidy_after = _TIDY_SECONDS

    @property
    def workers(self) -> int:
        """Processes that run now."""
        return len(self._workers)

    def tidy_soon(self) -> None:
        """More jobs have ended, here or elsewhere: their files may be too many."""
        self._tidy_after = _TIDY_SOON

    async def stop(self, seconds: float) -> None:
        """Start no more workers, tell those that run to write their checkpoint and end, and kill those that
        have not after ``seconds``. Their jobs wait for the next gateway."""
        await self.loop.finish()  # a job that it has just claimed has its worker then
        for worker in self._workers:
            worker.process.terminate()
        await self.loop.wait(seconds)
        for worker in self._workers:
            logger.warning("job %s: its worker did not end in time", worker.job)
            worker.process.kill()
        await self.loop.wait(5.0)

    async def _look(self) -> float:
        for worker in self._workers:
            self._limit(worker)  # first: it needs no store
        owners, most = [worker.owner for worker in self._workers], self.policy.max_attempts
        for job in await self.store.call(lambda store: store.reap(most, owners)):
            logger.warning("job %s was left by its worker: %s", job.id, job.state.value)
            self.files.settle(job.id, job.state)
        for worker in list(self._workers):
            await self._watch(worker)
        if self.tidies and time.monotonic() > self._tidied + self._tidy_after:
            self._tidied, self._tidy_after = time.monotonic(), _TIDY_SECONDS
            await self.store.call(self._tidy)
        while not self.loop.finishing and len(self._workers) < self.policy.concurrency:
            if not await self._start_one():
                break
        await self.looked()
        return _WATCH_SECONDS if self._workers else _IDLE_SECONDS

    def _tidy(self, store: JobStore) -> None:
        for job in store.forget(self.policy.keep_seconds, self.policy.keep_jobs):
            self.files.remove_result(job)
        now = store.now()
        self.files.sweep(store.unfinished(), now)
        sweep_results(store, self.files, self.policy)

    async def _start_one(self) -> bool:
        """Claim a job and start its worker; False if there is none."""
        able = self.takes()
        if not able:
            return False
        # If the answer is lost the next try is in the same name, and finds what this one has claimed.
        owner = self._next_owner
        lease = 2 * self.policy.lease_seconds
        claim = await self.store.call(lambda store: store.claim(owner, lease, self.policy.concurrency, able))
        if claim is None:
            return False
        self._next_owner = secrets.token_hex(8)
        threads = str(self.policy.threads)
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
            **self.command.environment,
        }
        try:
            process = await start_child(
                self.command.line(claim.job.id, owner, self.policy), environment=environment
            )
        except OSError as error:
            logger.error("no worker can be started: %s", error.strerror)
            await self._give_back(claim.job.id, owner, "", begun=False)  # tried again at the next look
            return False
        worker = _Worker(claim, owner, process)
        self._workers.add(worker)
        self.loop.spawn(self._follow(worker))
        return True

    async def _follow(self, worker: _Worker) -> None:
        """Wait for the end of a worker and settle what it has left open."""
        status = await worker.process.ended()
        worker.process.kill()  # what it may have started and left
        try:
            if worker.verdict is None:
                blame = "" if self.loop.finishing else _blame(status)
                await self._give_back(worker.job, worker.owner, blame)
                return
            verdict = error_of(worker.verdict)
            if await self.store.call(
                lambda store: store.finish(worker.job, worker.owner, JobState.FAILED, error=verdict)
            ):
                logger.warning("job %s failed: %s", worker.job, worker.verdict.message)
                self.files.settle(worker.job, JobState.FAILED)
        except ServingError as error:
            logger.warning("job %s: what became of it cannot be settled now: %s", worker.job, error.message)
        finally:
            self._workers.discard(worker)

    async def _give_back(self, job: str, owner: str, blame: str, *, begun: bool = True) -> None:
        most = self.policy.max_attempts
        left = await self.store.call(
            lambda store: store.give_back(job, owner, blame=blame, max_attempts=most, begun=begun)
        )
        if left is not None:
            if blame:
                logger.warning("job %s: its worker was lost, %s; it is %s now", job, blame, left.state.value)
            self.files.settle(job, left.state)
            return
        found = await self.store.call(lambda store: store.get(job))
        self.files.settle(job, found.state)
        if found.state is JobState.SUCCEEDED and self.tidies:
            await self.store.call(lambda store: sweep_results(store, self.files, self.policy))

    def _limit(self, worker: _Worker) -> None:
        """Kill a worker that goes over a limit."""
        policy = self.policy
        if worker.verdict is not None:
            return
        if (taken := worker.memory()) > policy.max_memory_bytes:
            worker.verdict = InsufficientStorage(
                f"the work takes more memory than a job may ({taken >> 20} MiB of "
                f"{policy.max_memory_bytes >> 20}); send fewer data",
                code="JOB_OUT_OF_MEMORY",
            )
        elif worker.running_seconds > policy.max_seconds:
            worker.verdict = DeadlineExceeded(
                f"the work took longer than the {policy.max_seconds:g} seconds that a job may run",
                code="JOB_TIME_LIMIT",
            )
        if worker.verdict is not None:
            worker.process.kill()

    async def _watch(self, worker: _Worker) -> None:
        """Kill a worker that does not stop when told."""
        if worker.verdict is not None:
            return
        job = await self.store.call(lambda store: store.get(worker.job))
        if job.cancelling:
            worker.told = worker.told or time.monotonic()
            # Its own thread ends it after stop_seconds; a process that hangs as a whole is killed here.
            if time.monotonic() > worker.told + self.policy.stop_seconds + 2.0:
                worker.process.kill()


def _blame(status: int) -> str:
    """Why a process ended, from its exit status."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ", as the system does when memory is short" if -status == signal.SIGKILL else ""
    return f"it was killed ({name}{hint})"
