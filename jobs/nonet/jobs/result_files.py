"""Results that are files: who may have which, and for how long they are kept.

A worker renames its finished file to its place (:meth:`JobContext.publish`), and the job's ``result`` names
it under ``file``. Files go before their jobs do: after a time, the oldest first when all together take too
much room (the newest stays), and with their job at the latest. A file of a job that the store does not know
stays its time too: the job may be another store's that uses the folder. All times are on the store's clock,
since those of the machines may differ.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path

from nonet.jobs.files import JobFiles
from nonet.jobs.job import Job, JobState
from nonet.jobs.policy import JobPolicy
from nonet.jobs.store_contract import JobStore
from nonet.runtime.errors import Conflict, NotFound


@dataclasses.dataclass(frozen=True, slots=True)
class ResultFile:
    """The file that a job has made.

    Args:
        job: the job, which has succeeded.
        path: the file; it may be gone before it is opened.
        size: bytes that it has.
    """

    job: Job
    path: Path
    size: int

    async def pieces(self, size: int) -> AsyncGenerator[bytes, None]:
        """The content, ``size`` bytes at a time and less in the end; a file that is removed meanwhile is read
        to its end all the same. Raises NotFound (``RESULT_EXPIRED``) before the first piece, if at all."""
        try:
            file = await asyncio.to_thread(self.path.open, "rb")
        except FileNotFoundError:
            raise NotFound(
                "the file of this job is no longer kept; submit it again under a new Idempotency-Key",
                param="job",
                code="RESULT_EXPIRED",
            ) from None
        with file:
            while piece := await asyncio.to_thread(file.read, size):
                yield piece


def result_file(job: Job, files: JobFiles) -> ResultFile:
    """The file of a job.

    Raises Conflict (``JOB_NOT_ENDED``, ``JOB_NOT_SUCCEEDED``), NotFound (``RESULT_NOT_FOUND``: work of this
    kind makes no file).
    """
    if not job.state.ended:
        raise Conflict(
            f"the job is {job.state.value}; its result is there when it has succeeded",
            param="job",
            code="JOB_NOT_ENDED",
        )
    if job.state is not JobState.SUCCEEDED:
        how = "was cancelled" if job.state is JobState.CANCELLED else "has failed"
        raise Conflict(f"the job {how}; it has no result", param="job", code="JOB_NOT_SUCCEEDED")
    if "file" not in (job.result or {}):
        raise NotFound(
            f"a job of kind {job.kind} makes no file; what came of it stands in its result",
            param="job",
            code="RESULT_NOT_FOUND",
        )
    return ResultFile(job, files.result(job.id), int((job.result or {})["bytes"]))


def sweep_results(store: JobStore, files: JobFiles, policy: JobPolicy) -> None:
    """Remove the files that are kept no longer: see the module's text. Raises as the store does."""
    kept: list[tuple[float, str, int]] = []
    now = store.now()
    for result in files.results():
        try:
            since = _kept_since(store.get(result.job), now)
        except NotFound:
            if result.written < now - policy.keep_result_seconds:
                files.remove_result(result.job)
            continue
        if since is None or since < now - policy.keep_result_seconds:
            files.remove_result(result.job)
        else:
            kept.append((since, result.job, result.size))
    total = 0
    for place, (_, job, size) in enumerate(sorted(kept, reverse=True)):
        total += size
        if place > 0 and total > policy.keep_result_bytes:
            files.remove_result(job)


def _kept_since(job: Job, now: float) -> float | None:
    """When a job succeeded, ``now`` for one that has not ended; None if its file is nobody's."""
    if not job.state.ended:
        return now
    return job.ended if job.state is JobState.SUCCEEDED else None
