"""Models whose requests need answers of other served models first: how a task says so.

A request to such a model is completed before it is queued, whichever face it came through: the task's
``complete`` asks the other models and puts what they answered into the request as further inputs. Each such
question goes the way of every request (it is cached, coalesced, batched, measured, and belongs to the caller,
the deadline and the priority of the request it is for), so equal ones are executed once. The key of the
request's own answer is made of what was found, so that an answer is never older than the models behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from nonet.runtime.requests import InferRequest, InferResponse, Parameter
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor

__all__ = ["Ask", "Composition", "Told"]


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What another model answered, and which model that was."""

    info: ModelInfo
    response: InferResponse


class Ask(Protocol):
    """Asks another model for a request that is being completed."""

    async def __call__(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Parameter] | None = None,
        *,
        task: str = "",
        model: str,
        version: str = "",
    ) -> Told:
        """The answer to ``inputs``.

        Args:
            inputs, parameters: of the question.
            task: where it is given, ``model`` is what a caller of that task would say (``auto``, a family, a
                network); else it is a model's own name.
            model: which model.
            version: of a model that is named by itself; "" for the one that the repository prefers.

        Raises as a caller's own request would: NotFound for a model that is not there, Unavailable if the
        task has none, what the model has against the inputs, and what comes of deadlines; Internal for a
        task that the composition does not name, and for a model that asks, in the end, itself.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Composition:
    """What requests to the models of a task need of others.

    Args:
        asks: names of the tasks whose models are asked by name, family or ``auto``. A process that is the
            task's service alone loads their networks, too.
        complete: given a valid request, the model it is for and a way to ask others, the request with
            what it was missing; the same object if it misses nothing. It runs on the event loop and must not
            compute: what costs time belongs into a model.
    """

    asks: tuple[str, ...]
    complete: Callable[[InferRequest, ModelInfo, Ask], Awaitable[InferRequest]]
