"""Inference requests and responses in memory: the form that REST and gRPC requests are decoded into."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from nonet.runtime.errors import ServingError
from nonet.runtime.tensors import Tensor

Parameter = bool | int | float | str

UNSURE_ROWS = "unsure_rows"
"""Parameter of a response: how many of the request's rows the model is unsure of. What says it is counted, so
that a drift of the inputs shows in the metrics."""


class OutputMemory(Protocol):
    """A range of the caller's shared memory, the place of one output."""

    @property
    def region(self) -> str:
        """Name of the region."""

    @property
    def offset(self) -> int:
        """Bytes from the beginning of the region."""

    def check(self, size: int) -> None:
        """Raises InvalidArgument if so many bytes do not fit."""

    def write(self, data: bytes) -> None:
        """Write the output. Raises ServingError if the range is no longer there."""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output the caller asks for.

    Args:
        name: the output's name.
        classification: top-k of the protocol's classification extension; 0 returns the tensor itself,
            k > 0 returns BYTES ``"score:index[:label]"``.
        parameters: the rest, e.g. ``binary_data`` (which only the REST codec reads).
        memory: where the output goes instead of into the answer, None if into the answer; no part of the
            cache key, since it does not change what the output is.
    """

    name: str
    classification: int = 0
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    memory: OutputMemory | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """One inference request inside Nonet, whatever face it came through.

    Args:
        model: name of an OIP model: a network or a service.
        version: version as text; empty means the one the repository's policy prefers.
        inputs: the tensors, in the caller's order.
        outputs: requested outputs; empty means all of them.
        parameters: request parameters that change the answer (they enter the cache key and keep
            requests that differ in them out of each other's batches).
        id: the caller's request id, empty if none.
        deadline: monotonic instant (seconds of the process's Clock) by which the answer must be ready;
            None means no deadline was given.
        priority: 0 is the highest.
        tenant: whose request this is; "" when keys are off. Cache entries never cross tenants.
        use_cache: False when the caller said ``no-store`` or ``no-cache``.
        store_in_cache: False when the caller said ``no-store``.
        state: what the model keeps of the request between two steps, opaque; None before the first. Set by
            the core alone; no part of the cache key.
        cost: how much work the request is, in units of one row of the model's sample request; set by the
            core, no part of the cache key.
        asked_by: names of the models for whose requests it is asked, the first caller's first; empty for a
            caller's own. Set by the core alone; no part of the cache key.
        traceparent: W3C trace context for whoever executes it in another process; "" for none. Set by the
            core alone; no part of the cache key.
    """

    model: str
    inputs: tuple[Tensor, ...]
    version: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    id: str = ""
    deadline: float | None = None
    priority: int = 1
    tenant: str = ""
    use_cache: bool = True
    store_in_cache: bool = True
    state: Any = None
    cost: float = 1.0
    asked_by: tuple[str, ...] = ()
    traceparent: str = ""

    def input(self, name: str) -> Tensor | None:
        """The input called ``name``, or None."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one request went, in seconds."""

    decode: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    encode: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """The answer to one request.

    ``device``, ``batch_size`` and ``cache`` (``hit`` ``miss`` ``coalesced`` ``bypass``) are filled in on
    the way out and become response headers. ``final`` is False for a partial answer: others follow.
    ``repeats`` is True for a final answer that says again what the last partial one said, because the model
    ended without another.
    """

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    timings: Timings = Timings()
    device: str = ""
    batch_size: int = 1
    cache: str = "bypass"
    final: bool = True
    repeats: bool = False

    def output(self, name: str) -> Tensor:
        """The output called ``name``. Raises KeyError if there is none."""
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor
        raise KeyError(name)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Continued:
    """The outcome of a step that was not the last: the request is to be executed again.

    Args:
        state: what the next execution finds in :attr:`InferRequest.state`.
        partial: an answer so far, for callers who stream; its outputs are held to the model's description.
    """

    state: Any
    partial: InferResponse | None = None


Outcome = InferResponse | ServingError | Continued
"""What became of one item of a batch: its own answer, failure or next step, never a peer's."""
