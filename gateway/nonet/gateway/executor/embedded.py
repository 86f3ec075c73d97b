"""Executor that runs batches in this process: one thread per lane, each running one batch at a time."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable

from nonet.gateway.executor.contract import BatchJob
from nonet.gateway.scheduler import QueueKey
from nonet.runtime.backends.residency import take_loading_seconds
from nonet.runtime.errors import Internal
from nonet.runtime.requests import Outcome

logger = logging.getLogger(__name__)


class EmbeddedDevice:
    """Lanes as threads. A backend releases the interpreter lock while it computes, so lanes run in parallel.

    Args:
        lanes: threads; the processor quota of the process is the natural number.
        name: the name shown in ``X-Device`` and metrics.
    """

    group = "embedded"
    steps = True

    def __init__(self, lanes: int, name: str = "cpu") -> None:
        self.name = name
        self.lanes = lanes
        self.on_health: Callable[[], None] = lambda: None
        self._jobs: queue.SimpleQueue[BatchJob | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def healthy(self) -> bool:
        return True

    def serves(self, key: QueueKey) -> bool:
        """True: whatever was leased in this process runs here, also a version retired since."""
        return True

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._run_lane, name=f"{self.name}-lane-{index}", daemon=True)
            for index in range(self.lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: BatchJob) -> Callable[[], object]:
        self._jobs.put(job)
        return lambda: None  # what runs in a thread of this process runs to its end; its result is dropped

    async def stop(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        # A lane stuck in a backend must not keep the process from ending: its thread is a daemon.
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 1.0)
        self._threads = []

    def _run_lane(self) -> None:
        while (job := self._jobs.get()) is not None:
            started = time.monotonic()
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
            loop = self._loop
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(job.finished, result, seconds)
            except RuntimeError:  # the loop was closed under a second signal
                return
            # A reference kept here until the next job would keep the tensors, and a lease, alive.
            del job, result
