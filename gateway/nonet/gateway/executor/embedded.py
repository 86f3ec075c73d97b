"""Executor that runs batches in this process: one thread per lane, each running one batch at a time.

A thread cannot be ended from outside. So an execution that takes longer than its limit is *written off*:
its batch fails at once (:class:`Hung`), a new thread takes its lane, and what it still computes is dropped
when it ends. Until then it holds a lease, so that no memory is freed under it. A process that has lost more
lanes than it may takes no more work.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable

from nonet.gateway.executor.contract import BatchJob, Hung
from nonet.gateway.scheduler import QueueKey, Rates
from nonet.gateway.scheduler.devices import NO_RATES
from nonet.runtime.backends.residency import take_loading_seconds
from nonet.runtime.catalog import Lease
from nonet.runtime.errors import Internal
from nonet.runtime.requests import Outcome

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.25
"""Seconds between looks for hung executions."""


class _Lane:
    """What a thread does now: its job and since when, or None. Written by the thread, but for ``lease``,
    which the event loop sets with the lock held when it writes the lane off, and ``started``, which it moves
    when the process was stopped meanwhile."""

    __slots__ = ("job", "lease", "lock", "started")

    def __init__(self) -> None:
        self.job: BatchJob | None = None
        self.started = 0.0
        self.lease: Lease | None = None
        self.lock = threading.Lock()


class EmbeddedDevice:
    """Lanes as threads. A backend releases the interpreter lock while it computes, so lanes run in parallel.

    Attributes:
        lost: threads that are still in an execution that was written off.

    Args:
        lanes: threads; the processor quota of the process is the natural number.
        name: the name shown in ``X-Device`` and metrics.
        max_lost: lanes that may be lost before the device is unhealthy.
        rates: what it costs.
    """

    group = "embedded"
    steps = True

    def __init__(self, lanes: int, name: str = "cpu", max_lost: int = 4, rates: Rates = NO_RATES) -> None:
        self.name = name
        self.lanes = lanes
        self.rates = rates
        self.lost = 0
        self.on_health: Callable[[], None] = lambda: None
        self._max_lost = max_lost
        self._jobs: queue.SimpleQueue[BatchJob | None] = queue.SimpleQueue()
        self._lanes: dict[_Lane, threading.Thread] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: asyncio.TimerHandle | None = None
        self._looked = 0.0

    @property
    def healthy(self) -> bool:
        return self.lost <= self._max_lost

    @property
    def why_unhealthy(self) -> str:
        return f"{self.lost} executions hang in it; it has to be restarted"

    def serves(self, key: QueueKey) -> bool:
        """True: whatever was leased in this process runs here, also a version retired since."""
        return True

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for _ in range(self.lanes):
            self._begin_lane()
        self._looked = time.monotonic()
        self._look = self._loop.call_later(_LOOK_EVERY, self._look_for_hung)

    def submit(self, job: BatchJob) -> Callable[[], object]:
        self._jobs.put(job)
        return lambda: None  # what runs in a thread of this process runs to its end; its result is dropped

    async def stop(self) -> None:
        if self._look is not None:
            self._look.cancel()
        for _ in self._lanes:
            self._jobs.put(None)
        # A lane stuck in a backend must not keep the process from ending: its thread is a daemon.
        for thread in self._lanes.values():
            await asyncio.to_thread(thread.join, 1.0)
        self._lanes = {}

    def _begin_lane(self) -> None:
        lane = _Lane()
        name = f"{self.name}-lane-{len(self._lanes)}"
        thread = threading.Thread(target=self._run_lane, args=(lane,), name=name, daemon=True)
        self._lanes[lane] = thread
        thread.start()

    def _look_for_hung(self) -> None:
        assert self._loop is not None
        self._look = self._loop.call_later(_LOOK_EVERY, self._look_for_hung)
        now = time.monotonic()
        slept = now - self._looked - _LOOK_EVERY
        self._looked = now
        if slept > _LOOK_EVERY:  # the process was stopped, or the machine slept: no execution went on
            for lane in self._lanes:
                lane.started += slept
        for lane in list(self._lanes):
            job = lane.job
            if job is not None and now - lane.started > job.limit:
                self._write_off(lane, job, now - lane.started)

    def _write_off(self, lane: _Lane, job: BatchJob, seconds: float) -> None:
        with lane.lock:
            if lane.job is not job:
                return  # it has ended this very moment
            lane.lease = job.lease.share()
        del self._lanes[lane]
        self.lost += 1
        logger.error(
            "an execution of model %s has run for %.1f s: given up, a new thread takes its lane (%d lost)",
            job.servable.info.name,
            seconds,
            self.lost,
        )
        self._begin_lane()
        job.finished(Hung("the model did not finish this request in any sensible time"), seconds)
        if not self.healthy:
            self.on_health()

    def _found(self) -> None:
        """An execution that was written off has ended after all."""
        self.lost -= 1
        logger.warning("an execution that was given up has ended (%d lost)", self.lost)
        self.on_health()

    def _run_lane(self, lane: _Lane) -> None:
        while (job := self._jobs.get()) is not None:
            lane.started = started = time.monotonic()
            lane.job = job
            result: list[Outcome] | BaseException
            try:
                result = job.servable.execute(job.requests)
                if len(result) != len(job.requests):
                    result = Internal("the model gave another number of answers than there were requests")
            except BaseException as error:  # a lane outlives whatever a backend raises
                if not isinstance(error, Exception):
                    logger.exception("a lane caught %s", type(error).__name__)
                result = error
            # What teaches how long a model takes leaves out its way back into memory.
            seconds = max(time.monotonic() - started - take_loading_seconds(), 0.0)
            with lane.lock:
                lane.job = None
            loop = self._loop
            try:
                if lane.lease is not None:
                    lane.lease.release()
                    assert loop is not None
                    loop.call_soon_threadsafe(self._found)
                    return
                if loop is not None:
                    loop.call_soon_threadsafe(job.finished, result, seconds)
            except RuntimeError:  # the loop was closed under a second signal
                return
            # A reference kept here until the next job would keep the tensors, and a lease, alive.
            del job, result
