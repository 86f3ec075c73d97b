"""A request on its way through the queue, and what its caller hears of its end."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from nonet.gateway.executor.contract import BackendCrashed
from nonet.gateway.scheduler import Batch, Item, QueueKey
from nonet.runtime.backends.contract import OutOfMemory
from nonet.runtime.catalog import Lease
from nonet.runtime.errors import InsufficientStorage, Internal, ServingError
from nonet.runtime.requests import InferRequest, InferResponse, Timings

__all__ = ["Ticket", "lost", "model_failed"]


def model_failed(error: BaseException | None = None) -> ServingError:
    """What a caller hears of a model's own failure, ``error`` where it is known."""
    if isinstance(error, MemoryError | OutOfMemory):
        message = "the model ran out of memory on this request; send less at once"
        return InsufficientStorage(message, code="OUT_OF_MEMORY")
    return Internal("the model failed on this request", code="MODEL_FAILED")


def lost(key: QueueKey) -> BackendCrashed:
    """What a caller hears when the last device of a model has gone."""
    return BackendCrashed(f"no healthy device serves model '{key[0]}' any more")


@dataclasses.dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the queue; ``done`` holds its outcome. Owns its lease.

    ``deliver`` takes the partial answers and says whether anybody reads them; what it raises fails the
    request, and what was read is not tried a second time. ``waited`` and ``computed`` are
    the seconds of the steps that it has taken. ``flights`` are the executions that it is in now,
    ``ended`` says that no further one will answer it.
    """

    request: InferRequest
    lease: Lease
    item: Item
    done: asyncio.Future[InferResponse | ServingError]
    deliver: Callable[[InferResponse], bool]
    retried: bool = False
    waited: float = 0.0
    computed: float = 0.0
    flights: int = 0
    ended: bool = False

    def described(
        self, response: InferResponse, batch: Batch, seconds: float, *, final: bool
    ) -> InferResponse:
        """``response``, which an execution of ``seconds`` gave, with what is known of how it came about."""
        timings = response.timings
        waited = self.waited + max(batch.started - self.item.arrival, 0.0)
        computed = self.computed + (timings.compute or seconds)
        return dataclasses.replace(
            response,
            device=batch.device,
            batch_size=batch.rows,
            timings=Timings(timings.decode, waited, computed, timings.encode),
            final=final,
        )
