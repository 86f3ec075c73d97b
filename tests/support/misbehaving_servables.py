"""Servables that behave badly in one known way each: the adversaries of unit, integration and load tests.

All of them share one small interface model (:func:`doubling_info`): input ``x`` FP32 [-1, width], output
``y`` = 2 x. They are thread-safe and keep a record of what they were asked to do, so that a test can assert
how often a backend was really called. None sleeps in a way that cannot be cut short: ``close`` releases
everything that waits.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

import numpy as np

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.requests import Continued, InferRequest, InferResponse, Outcome
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor, TensorSpec

POISON = 666.0
"""A row that holds this value is what the selectively bad servables object to."""


def doubling_info(
    name: str = "doubler", version: str = "1", *, width: int = 4, max_batch_size: int = 8, **changes: object
) -> ModelInfo:
    """The interface all servables here share; ``changes`` replaces fields of :class:`ModelInfo`."""
    shape = (-1, width) if max_batch_size else (1, width)
    info = ModelInfo(
        name=name,
        version=version,
        digest=f"digest-of-{name}-{version}",
        platform="nonet_test",
        inputs=(TensorSpec("x", DataType.FP32, shape),),
        outputs=(TensorSpec("y", DataType.FP32, shape),),
        max_batch_size=max_batch_size,
    )
    return dataclasses.replace(info, **changes)  # type: ignore[arg-type]


def doubling_request(
    value: float = 1.0, *, model: str = "doubler", rows: int = 1, width: int = 4, **changes: object
) -> InferRequest:
    """A valid request of ``rows`` rows, every element ``value``; ``changes`` replaces request fields."""
    tensor = Tensor.of("x", np.full((rows, width), value, dtype=np.float32))
    request = InferRequest(model=model, inputs=(tensor,))
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]


def rows_of(request: InferRequest) -> int:
    return request.inputs[0].shape[0]


def is_poison(request: InferRequest) -> bool:
    return bool((request.inputs[0].data == POISON).any())


class DoublingServable:
    """The healthy one: answers 2 x. The others change one thing about it.

    ``executions`` holds the rows of every batch that reached it; ``closed`` is set by :meth:`close`.
    """

    def __init__(self, info: ModelInfo | None = None) -> None:
        self._info = info or doubling_info()
        self._lock = threading.Lock()
        self.executions: list[int] = []
        self.closed = threading.Event()

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def executed_rows(self) -> int:
        with self._lock:
            return sum(self.executions)

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        rows = sum(rows_of(request) for request in batch)
        with self._lock:
            self.executions.append(rows)
        return self.answer(batch, rows)

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        return [self.double(request, rows) for request in batch]

    def double(self, request: InferRequest, rows: int) -> InferResponse:
        output = Tensor("y", DataType.FP32, request.inputs[0].data * np.float32(2))
        return InferResponse(
            model=self._info.name,
            version=self._info.version,
            outputs=(output,),
            id=request.id,
            batch_size=rows,
        )

    def sample_request(self, rows: int) -> InferRequest:
        return doubling_request(model=self._info.name, rows=rows, width=self._info.inputs[0].shape[1])

    def warm_up(self) -> None:
        return None

    def close(self) -> None:
        self.closed.set()


class SteppingServable(DoublingServable):
    """Healthy, and takes as many steps as the request's first value says, each ``seconds`` long. A partial
    answer holds the number of the step; ``steps`` lists the values of each batch."""

    def __init__(self, seconds: float = 0.0, *, info: ModelInfo | None = None) -> None:
        super().__init__(info or doubling_info(decoupled=True))
        self.seconds = seconds
        self.steps: list[list[float]] = []

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        self.closed.wait(self.seconds)
        with self._lock:
            self.steps.append([float(request.inputs[0].data.flat[0]) for request in batch])
        return [self._step(request, rows) for request in batch]

    def _step(self, request: InferRequest, rows: int) -> Outcome:
        taken = (request.state or 0) + 1
        response = self.double(request, rows)
        if taken >= request.inputs[0].data.flat[0]:
            return response
        output = Tensor("y", DataType.FP32, np.full_like(request.inputs[0].data, taken))
        return Continued(taken, dataclasses.replace(response, outputs=(output,)))


class SlowServable(DoublingServable):
    """Takes ``seconds`` per batch plus ``seconds_per_row`` per row; ``close`` cuts the wait short."""

    def __init__(
        self, seconds: float, *, seconds_per_row: float = 0.0, info: ModelInfo | None = None
    ) -> None:
        super().__init__(info)
        self.seconds = seconds
        self.seconds_per_row = seconds_per_row

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        self.closed.wait(self.seconds + self.seconds_per_row * rows)
        return super().answer(batch, rows)


class HangingServable(DoublingServable):
    """Blocks every batch until ``release`` is set. ``entered`` is set once the first batch is inside."""

    def __init__(self, info: ModelInfo | None = None) -> None:
        super().__init__(info)
        self.entered = threading.Event()
        self.release = threading.Event()

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        self.entered.set()
        self.release.wait()
        return super().answer(batch, rows)

    def close(self) -> None:
        self.release.set()
        super().close()


class FailingServable(DoublingServable):
    """Raises ``error`` for the whole batch, the first ``times`` times (None: always); healthy afterwards."""

    def __init__(
        self, error: Exception | None = None, *, times: int | None = None, info: ModelInfo | None = None
    ) -> None:
        super().__init__(info)
        self.error = error or RuntimeError("a secret of the backend at /srv/models/secret.onnx")
        self._left = times

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        with self._lock:
            fail = self._left is None or self._left > 0
            if self._left:
                self._left -= 1
        if fail:
            raise self.error
        return super().answer(batch, rows)


class NanServable(DoublingServable):
    """Answers NaN: to everybody, or with ``only_poison`` to the poisoned requests alone.

    It does not check its own output, as a careless backend would not: what stands above it must.
    """

    def __init__(
        self, *, only_poison: bool = False, value: float = float("nan"), info: ModelInfo | None = None
    ) -> None:
        super().__init__(info)
        self.only_poison = only_poison
        self.value = value

    def double(self, request: InferRequest, rows: int) -> InferResponse:
        response = super().double(request, rows)
        if not self.only_poison or is_poison(request):
            response.outputs[0].data[:] = self.value
        return response


class ItemFailingServable(DoublingServable):
    """Fails the items ``is_bad`` picks (default: poisoned ones) with an error of their own, and no other."""

    def __init__(
        self,
        error: ServingError | None = None,
        *,
        is_bad: Callable[[InferRequest], bool] = is_poison,
        info: ModelInfo | None = None,
    ) -> None:
        super().__init__(info)
        self.error = error or InvalidArgument("input 'x' holds a value this model does not accept", param="x")
        self.is_bad = is_bad

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        return [self.error if self.is_bad(request) else self.double(request, rows) for request in batch]


class BatchPoisonedServable(DoublingServable):
    """A naive backend: one poisoned item makes it raise for the whole batch it is in."""

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        if any(is_poison(request) for request in batch):
            raise RuntimeError("one item broke the batch")
        return super().answer(batch, rows)


class OutOfMemoryServable(DoublingServable):
    """Raises MemoryError for every batch of more than ``rows_that_fit`` rows."""

    def __init__(self, rows_that_fit: int, *, info: ModelInfo | None = None) -> None:
        super().__init__(info)
        self.rows_that_fit = rows_that_fit

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        if rows > self.rows_that_fit:
            raise MemoryError(f"no room for {rows} rows")
        return super().answer(batch, rows)


class GarbageServable(DoublingServable):
    """Breaks the contract of ``execute`` in one way, named by ``how``.

    ``missing``: one outcome too few; ``extra``: one too many; ``none``: None instead of outcomes;
    ``shape``: one column too few; ``datatype``: FP64 instead of FP32; ``name``: an output nobody declared.
    """

    WAYS = ("missing", "extra", "none", "shape", "datatype", "name")

    def __init__(self, how: str, *, info: ModelInfo | None = None) -> None:
        if how not in self.WAYS:
            raise ValueError(f"how must be one of {self.WAYS}, got {how!r}")
        super().__init__(info)
        self.how = how

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        outcomes = super().answer(batch, rows)
        if self.how == "missing":
            return outcomes[:-1]
        if self.how == "extra":
            return [*outcomes, outcomes[-1]]
        if self.how == "none":
            return [None for _ in outcomes]  # type: ignore[misc]
        return outcomes

    def double(self, request: InferRequest, rows: int) -> InferResponse:
        response = super().double(request, rows)
        output = response.outputs[0]
        if self.how == "shape":
            output = Tensor.of("y", output.data[:, :-1])
        elif self.how == "datatype":
            output = Tensor.of("y", output.data.astype(np.float64))
        elif self.how == "name":
            output = Tensor.of("surprise", output.data)
        return dataclasses.replace(response, outputs=(output,))


class FailingWarmUpServable(DoublingServable):
    """Cannot be warmed up; must therefore never become ready."""

    def warm_up(self) -> None:
        raise RuntimeError("the first run failed")
