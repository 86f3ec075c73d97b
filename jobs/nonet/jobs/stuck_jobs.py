"""Finds the jobs that no worker can take, and says so: in their phase, in the log, in the metrics.

    what waits, what workers announce -> a queue without a worker, for a while -> noted -> a worker comes

Every process that uses a store looks at the same facts and comes to the same words, so it does not matter
which of them writes them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from nonet.jobs.async_store import AsyncStore
from nonet.jobs.requirements import NOTE, Queue, lacking, note_of

logger = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds for which nobody may be there before jobs say so: workers announce themselves every few seconds."""


class StuckJobs:
    """Look with :meth:`look`, now and then.

    Args:
        store: where the jobs are.
        clock: monotonic seconds.
    """

    def __init__(self, store: AsyncStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._alone: dict[tuple[str, ...], float] = {}
        self._said: set[tuple[str, ...]] = set()
        self._counts: Mapping[tuple[str, str], int] = {}

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Number of jobs that nobody can take, by their kind and what is missing, as of the last look."""
        return self._counts

    async def look(self) -> None:
        """Note what waits for nobody, and what does no more. Raises ServingError."""
        demand = await self._store.call(lambda store: store.demand())
        counts: dict[tuple[str, str], int] = {}
        alone: dict[tuple[str, ...], float] = {}
        for queue in demand.queues:
            missing = lacking(queue.words, demand.workers)
            if not missing:
                await self._note(queue, "")
                continue
            since = alone[queue.words] = self._alone.get(queue.words, self._clock())
            # What another process has noted already is noted on.
            if queue.note or self._clock() - since >= _PATIENCE:
                counts[queue.words[0], " ".join(missing)] = queue.waiting
                await self._note(queue, note_of(missing))
                self._tell(queue, missing)
        self._alone, self._counts = alone, counts
        self._said &= alone.keys()

    async def _note(self, queue: Queue, note: str) -> None:
        if queue.note != note:
            await self._store.call(lambda store: store.note(queue.words, note))

    def _tell(self, queue: Queue, missing: Sequence[str]) -> None:
        if queue.words not in self._said:
            self._said.add(queue.words)
            why = note_of(missing).removeprefix(NOTE)
            logger.warning("jobs wait (%d %s): %s", queue.waiting, queue.words[0], why)
