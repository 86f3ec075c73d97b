"""A worker: a process that runs one job and ends.

    started with a job and an owner's name -> beats -> the runner works -> the outcome is written -> exit

A thread renews the lease, writes how far the work is and asks whether to go on; the runner learns of it at
its next :meth:`JobContext.report`. It stops there when the job was cancelled, when the process was told to
end (SIGTERM: the job waits again and goes on from its checkpoint), when the process that started it is gone,
or when the job has been given to another. A runner that does not come to a report in time is left behind:
the process ends without it.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import importlib
import importlib.util
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nonet.jobs.files import JobFiles
from nonet.jobs.job import Beat, Claim, JobState, error_of
from nonet.jobs.job_records import json_of
from nonet.jobs.process_identity import process_name
from nonet.jobs.store_contract import JobStore
from nonet.runtime.errors import (
    InsufficientStorage,
    Internal,
    NotImplementedHere,
    ServingError,
)
from nonet.runtime.job_context import JobContext
from nonet.runtime.repository.publish import check_writable
from nonet.runtime.task import Work

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 0.5
_LARGEST_PARTIAL = 64 << 10
"""Bytes of JSON; what the work has found so far is shown to every reader of the job, so it must be little."""
_PATIENCE = 300.0
"""Seconds for which the outcome of a job is tried to be written while the disk is full, or the store away."""
_LONGEST_PAUSE = 2.0

T = TypeVar("T")


class Stopped(Exception):
    """Raised by :meth:`RunningJob.report`: the runner is to let go of everything and pass this on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """Which job a worker process is for, and within which limits.

    Args:
        job, owner: the job, and the name under which it was claimed.
        lease_seconds: how long the job stays the owner's without a beat.
        stop_seconds: how long a runner may take to come to a report after it was told to stop.
        parent: pid of the process that started this one; 0 if nobody watches over it.
        memory_bytes: memory that the process may reserve; 0 for no limit.
        nice: how much it steps back for other processes.
    """

    job: str
    owner: str
    lease_seconds: float = 15.0
    stop_seconds: float = 10.0
    parent: int = 0
    memory_bytes: int = 0
    nice: int = 0


class RunningJob(JobContext):
    """The job of this process, as the function that does it sees it."""

    def __init__(self, claim: Claim, files: JobFiles, heartbeat: _Heartbeat, repository: Path) -> None:
        self.job = claim.job.id
        self.kind = claim.job.kind
        self.tenant = claim.job.tenant
        self.spec = claim.spec
        self.folder = files.folder(self.job)
        self.repository = repository
        self.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        self._files = files
        self._heartbeat = heartbeat

    def report(self, progress: float, phase: str, partial: Mapping[str, Any] | None = None) -> None:
        """See :class:`JobContext`. Raises Stopped when the work is to end."""
        self._heartbeat.note(progress, phase, partial)

    def input(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            logger.error("the files of a job are missing: there is no %s", path.absolute())
            raise Internal(
                "the files of the job are not where its worker runs; the folder of the jobs (jobs.path) must "
                "be one that all machines share",
                code="JOB_FILES_MISSING",
            )
        return path

    def publish(self, file: Path, facts: Path) -> None:
        self._files.publish(self.job, file, facts)

    def published(self) -> dict[str, Any] | None:
        return self._files.published(self.job)


def missing(work: Work) -> str:
    """What has to be installed before this work can be done, in words for an operator; "" if nothing."""
    absent = [name for name in work.requires if not _is_installed(name)]
    text = work.install or "{missing} must be installed first"
    return text.format(missing=", ".join(absent)) if absent else ""


def run_job(
    store: JobStore, files: JobFiles, works: Mapping[str, Work], repository: Path, assignment: Assignment
) -> int:
    """Run the job of ``assignment`` in this process; returns the exit status (0: its outcome is written).

    To be called in the main thread, since it listens to SIGTERM.
    """
    claim = _patient(lambda: store.claimed(assignment.job, assignment.owner))
    if claim is None:
        logger.warning("job %s is not this worker's", assignment.job)
        return 0
    heartbeat = _Heartbeat(store, assignment, claim.job.progress)
    signal.signal(signal.SIGTERM, lambda *_: heartbeat.stop(_Reason.TOLD))
    heartbeat.start()
    logger.info(
        "job %s (%s %s): attempt %d", claim.job.id, claim.job.kind, claim.job.subject, claim.job.attempts
    )
    try:
        work = _known(works, claim.job.kind)
        if work.publishes is not None:
            check_writable(repository)  # rather now than when all the work is done
        module, _, function = work.run.partition(":")
        run = getattr(importlib.import_module(module), function)
        result: Mapping[str, Any] = run(RunningJob(claim, files, heartbeat, repository))
    except Stopped:
        return _stopped(store, files, assignment, heartbeat)
    except Exception as error:
        failure = _explained(error, claim.job.id)
        logger.warning("job %s failed: %s", claim.job.id, failure.message)
        ending = {"state": JobState.FAILED, "error": error_of(failure)}
    else:
        logger.info("job %s succeeded", claim.job.id)
        ending = {"state": JobState.SUCCEEDED, "result": result}
    heartbeat.end()
    try:
        mine = _patient(lambda: store.finish(assignment.job, assignment.owner, **ending))  # type: ignore[arg-type]
    except ServingError:
        return 1
    if mine:  # else another may be working on it in the folder
        files.remove(assignment.job)
    return 0


class _Reason(enum.Enum):
    """Why a runner is stopped."""

    CANCELLED = "it was cancelled"
    TOLD = "the process was told to end"
    ORPHANED = "the process that started it is gone"
    LOST = "the job is another's by now"


class _Heartbeat:
    """The thread that beats; see the module's text."""

    def __init__(self, store: JobStore, assignment: Assignment, progress: float) -> None:
        self._store = store
        self._assignment = assignment
        self._worker = process_name(os.getpid())
        self._begun = self._beaten = time.monotonic()
        self._first: tuple[float, float] | None = None
        # As far as an earlier attempt came, until this one says how much of that is left.
        self._progress, self._phase = progress, "starting"
        self._partial: Mapping[str, Any] | None = None
        self._stopping: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.reason: _Reason | None = None

    def start(self) -> None:
        self._beat()
        self._thread.start()

    def note(self, progress: float, phase: str, partial: Mapping[str, Any] | None = None) -> None:
        if self._first is None:
            self._first = (time.monotonic(), progress)
        self._progress, self._phase = progress, phase
        if partial is not None:
            self._partial = partial
        if self.reason is not None:
            raise Stopped(self.reason.value)

    def stop(self, reason: _Reason) -> None:
        """Make the next report raise; the first reason stands."""
        if self.reason is None:
            self.reason, self._stopping = reason, time.monotonic()

    def end(self) -> None:
        """Beat no more: the runner is done."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            parent = self._assignment.parent
            if parent and os.getppid() != parent:
                self.stop(_Reason.ORPHANED)
            self._beat()
            if (
                self._stopping is not None
                and time.monotonic() > self._stopping + self._assignment.stop_seconds
            ):
                self._leave()

    def _beat(self) -> None:
        now, partial = time.monotonic(), self._partial
        try:
            far = self._progress, self._phase, self._eta(now), _small(partial)
            beat = Beat(self._worker, now - self._beaten, *far)
            owned = (self._assignment.job, self._assignment.owner, self._assignment.lease_seconds)
            orders = self._store.beat(*owned, beat)
        except ServingError:
            return  # the store has said why in the log; the disk may have room again at the next beat
        self._beaten = now
        if self._partial is partial:  # else something newer waits for the next beat
            self._partial = None
        if orders.lost:
            self.stop(_Reason.LOST)
        elif orders.cancelled:
            self.stop(_Reason.CANCELLED)

    def _eta(self, now: float) -> float | None:
        """Seconds to the end at the mean pace of this attempt; None before there is a pace."""
        if self._first is None or self._progress <= self._first[1]:
            return None
        since, start = self._first
        return (1.0 - self._progress) * (now - since) / (self._progress - start)

    def _leave(self) -> None:
        """The runner does not come to a report: end without it. Its checkpoint is as old as it is."""
        logger.warning("job %s: its runner did not stop in time", self._assignment.job)
        try:
            if self.reason is not _Reason.LOST:
                self._store.give_back(self._assignment.job, self._assignment.owner)
        except ServingError:
            logger.warning("job %s: its lease is left to run out", self._assignment.job)
        logging.shutdown()
        os._exit(1)


def _small(partial: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What is small enough to be kept with the job, else nothing."""
    small = partial is not None and len(json_of(partial) or "") <= _LARGEST_PARTIAL
    return partial if small else None


def _stopped(store: JobStore, files: JobFiles, assignment: Assignment, heartbeat: _Heartbeat) -> int:
    """The runner has let go; a cancelled job ends, one that is to go on waits again."""
    assert heartbeat.reason is not None
    logger.info("job %s stops: %s", assignment.job, heartbeat.reason.value)
    heartbeat.end()
    if heartbeat.reason is _Reason.LOST:
        return 0
    try:
        left = _patient(lambda: store.give_back(assignment.job, assignment.owner), assignment.stop_seconds)
    except ServingError:
        return 1  # its lease is left to run out
    if left is not None:
        files.settle(assignment.job, left.state)
    return 0


def _known(works: Mapping[str, Work], kind: str) -> Work:
    work = works.get(kind)
    if work is None:
        raise NotImplementedHere(f"this worker does not know the work '{kind}'", code="JOB_KIND_UNKNOWN")
    if absent := missing(work):
        raise NotImplementedHere(absent, code="EXTRA_MISSING")
    return work


def _explained(error: Exception, job: str) -> ServingError:
    """A runner's failure in words for the caller; what is no caller's business goes to the log."""
    if isinstance(error, ServingError):
        return error
    # Tensor libraries say it in their own words.
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    ):
        return InsufficientStorage(
            "the work needs more memory than a job may take; send fewer data", code="JOB_OUT_OF_MEMORY"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InsufficientStorage("the disk became full")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return InsufficientStorage("the disk became read-only")
    if isinstance(error, ModuleNotFoundError):
        return NotImplementedHere(f"the module {error.name} is not installed; see 'nonet doctor'")
    logger.error("job %s failed unexpectedly", job, exc_info=error)
    return Internal(f"internal error; the server's log has more under job id {job}")


def _patient(call: Callable[[], T], seconds: float = _PATIENCE) -> T:
    """A call on a store that may be full or away for a while. Raises ServingError in the end."""
    until, pause = time.monotonic() + seconds, 0.2
    while True:
        try:
            return call()
        except ServingError:
            if time.monotonic() > until:
                raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _is_installed(module: str) -> bool:
    """Whether a module can be found; one whose search fails is as good as absent."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
