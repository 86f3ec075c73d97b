"""Loads what jobs have published into this process, whichever machine they ran on.

A job whose result has to be loaded still runs, to callers of this process, until that is done here. The ends
of the jobs of a store are numbered, so no process misses one: each keeps the number up to which it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping

from nonet.jobs.async_store import AsyncStore
from nonet.jobs.job import Job, JobState
from nonet.jobs.wake_loop import WakeLoop
from nonet.runtime.errors import ServingError

logger = logging.getLogger(__name__)


class Completions:
    """Start its ``loop`` to look whenever that is woken.

    Args:
        store: where the jobs are.
        changed: called when more jobs are seen to have ended.

    Attributes:
        uses: by kind, what is awaited with a job that has succeeded, to make its result usable; once for
            those of a kind that are found at the same time. Jobs of other kinds are shown as they are.
    """

    def __init__(self, store: AsyncStore, changed: Callable[[], None]) -> None:
        self.uses: Mapping[str, Callable[[Job], Awaitable[None]]] = {}
        self.loop = WakeLoop("looking for jobs that have ended", self._look)
        self._store = store
        self._changed = changed
        self._done = 0
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """What has ended until now is usable, or will be when this process has started."""
        with contextlib.suppress(ServingError):  # then all of it is looked at again
            self._done = await self._store.call(lambda store: store.last_ending())

    def shown(self, job: Job) -> Job:
        """The job as callers may see it."""
        if job.kind not in self.uses or job.state is not JobState.SUCCEEDED or job.ending <= self._done:
            return job
        self.loop.wake()
        return dataclasses.replace(
            job,
            state=JobState.RUNNING,
            phase="loading the result",
            result=None,
            ended=None,
            revision=job.revision - 1,
        )

    async def settled(self, job: Job) -> None:
        """Wait until callers may see that this job has ended. Raises what the store raises."""
        if job.kind in self.uses and job.ending > self._done:
            await self._look()

    async def _look(self) -> None:
        async with self._lock:
            last = await self._store.call(lambda store: store.last_ending())
            if last < self._done:  # the store was emptied, or went back in time
                self._done = 0
            while self._done < last:
                ended = await self._store.call(lambda store: store.ended(self._done))
                fresh = {job.kind: job for job in ended if job.state is JobState.SUCCEEDED}
                for kind in self.uses.keys() & fresh.keys():
                    await self._make_usable(fresh[kind])
                self._done = ended[-1].ending if ended else last  # without: they are forgotten already
                self._changed()

    async def _make_usable(self, job: Job) -> None:
        try:
            await self.uses[job.kind](job)
        except Exception:
            logger.exception("the result of job %s cannot be used here now", job.id)
