"""The interface of executors: what a device is given to run, and what it tells of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from nonet.gateway.scheduler import QueueKey, Rates
from nonet.runtime.catalog import Lease
from nonet.runtime.errors import NotFound, Unavailable
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.servable import Servable


class BackendCrashed(Unavailable):
    """The process behind a device went away with the batch; the same work may be tried once elsewhere."""

    default_code = "BACKEND_CRASHED"


class NotReached(BackendCrashed):
    """It was gone before the batch had reached it, so the batch was not the reason."""


class Hung(BackendCrashed):
    """An execution took so long that it was given up; what was alone in it is not tried again."""

    default_code = "EXECUTION_HUNG"


class VersionGone(NotFound):
    """The service no longer has the version it told of; it may have a newer one."""

    default_code = "VERSION_NOT_FOUND"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class BatchJob:
    """One batch to execute.

    Args:
        lease: of the model version, held by the caller until ``finished`` is called; a device that has not
            ended the execution by then takes a share of its own.
        requests: its requests; they agree in all but the batch dimension and the values.
        finished: called exactly once, on the event loop, with the outcomes in order (or the exception that
            failed the whole batch) and the seconds of execution.
        tell: called on the event loop, before ``finished``, with the index of a request and a partial answer
            to it.
        limit: seconds after which the execution counts as hung.
    """

    lease: Lease
    requests: Sequence[InferRequest]
    finished: Callable[[list[Outcome] | BaseException, float], None]
    tell: Callable[[int, InferResponse], None]
    limit: float = math.inf

    @property
    def servable(self) -> Servable:
        """The model version."""
        return self.lease.servable


class Device(Protocol):
    """Runs batches on its lanes.

    ``healthy`` False takes it out of every decision; devices of one ``group`` stand in for each other, and
    the server is ready only while each group has a healthy one. ``rates`` say what it costs. ``steps`` says
    whether a request of several steps comes back after each of them, instead of being run to its end at
    once. ``on_health`` is set by the dispatcher and called, on the event loop, when ``healthy`` changes.
    """

    name: str
    lanes: int
    group: str
    rates: Rates
    steps: bool
    on_health: Callable[[], None]

    @property
    def healthy(self) -> bool: ...

    @property
    def why_unhealthy(self) -> str:
        """What is wrong while it is not healthy, in words for everybody."""
        ...

    def serves(self, key: QueueKey) -> bool:
        """Whether it can run this model version now."""
        ...

    async def start(self) -> None: ...

    def submit(self, job: BatchJob) -> Callable[[], object]:
        """Start ``job`` now, on the event loop; returns a function that abandons it where that is possible
        (its ``finished`` is still called)."""
        ...

    async def stop(self) -> None:
        """Wait for what runs, then free threads and connections."""
        ...
