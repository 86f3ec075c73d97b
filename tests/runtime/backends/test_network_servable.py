"""Batches: the answer of an item is its own, whatever its peers are and whatever goes wrong with them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.backends import BackendError, InputsRejected, NetworkServable, OutOfMemory
from nonet.runtime.backends.network import doubling_sizes, warm_up_sizes
from nonet.runtime.backends.samples import SampleInputs
from nonet.runtime.errors import (
    InsufficientStorage,
    Internal,
    InvalidArgument,
    ModelOutputInvalid,
    ServingError,
    Unprocessable,
)
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec

POISON = 13.0
Body = Callable[[Array], Array]


class ScriptedNetwork:
    """An engine's network whose arithmetic is a Python function; keeps the rows of each call."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.calls: list[int] = []
        self.warmed: list[int] = []
        self.unloaded = False

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        self.warmed.append(len(inputs["x"]))
        self.body(inputs["x"])

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.calls.append(len(inputs["x"]))
        y = self.body(inputs["x"])
        return {name: y if name == "y" else -y for name in outputs}

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        """A Python function keeps none."""

    def unload(self) -> None:
        self.unloaded = True

    def describe(self) -> dict[str, Any]:
        return {"engine": "scripted"}


def servable(
    body: Body, *, max_batch_size: int = 8, width: int = 2, **changes: Any
) -> tuple[NetworkServable, ScriptedNetwork]:
    shape = (-1, width) if max_batch_size else (1, width)
    info = ModelInfo(
        name="net",
        version="3",
        digest="d",
        platform="test",
        inputs=(TensorSpec("x", DataType.FP32, shape),),
        outputs=(TensorSpec("y", DataType.FP32, shape), TensorSpec("z", DataType.FP32, shape)),
        max_batch_size=max_batch_size,
    )
    info = dataclasses.replace(info, **changes)
    network = ScriptedNetwork(body)
    return NetworkServable(info, network, SampleInputs(info.inputs, batches=max_batch_size > 0)), network


def request(*rows: float, width: int = 2, **changes: Any) -> InferRequest:
    data = np.repeat(np.array(rows, dtype=np.float32)[:, None], width, axis=1)
    return InferRequest(model="net", inputs=(Tensor.of("x", data),), **changes)


def double(x: Array) -> Array:
    return x * np.float32(2)


def explode_on_poison(x: Array) -> Array:
    if (x == POISON).any():
        raise BackendError("/srv/models/secret.onnx: node failed")
    return double(x)


def answers(outcomes: Sequence[Any]) -> list[Any]:
    return [
        outcome.output("y").data[:, 0].tolist() if isinstance(outcome, InferResponse) else type(outcome)
        for outcome in outcomes
    ]


@given(
    st.lists(
        st.lists(st.sampled_from([1.0, 2.0, 5.0, POISON]), min_size=1, max_size=3), min_size=1, max_size=8
    ),
    st.integers(1, 8),
)
def test_each_outcome_is_the_one_the_request_has_alone(batch: list[list[float]], limit: int) -> None:
    one, network = servable(explode_on_poison, max_batch_size=limit)
    requests = [request(*rows, id=str(index)) for index, rows in enumerate(batch)]
    together = one.execute(requests)
    alone = [one.execute([each])[0] for each in requests]
    assert answers(together) == answers(alone)
    for outcome, rows, index in zip(together, batch, range(len(batch)), strict=True):
        assert isinstance(outcome, InferResponse) == (POISON not in rows)
        if isinstance(outcome, InferResponse):
            assert outcome.id == str(index)
            assert outcome.version == "3"
    assert all(rows <= max(limit, 3) for rows in network.calls)


def test_one_culprit_among_eight_costs_few_runs_and_no_peer() -> None:
    one, network = servable(explode_on_poison)
    outcomes = one.execute([request(POISON if index == 5 else float(index)) for index in range(8)])
    assert [isinstance(outcome, ServingError) for outcome in outcomes] == [index == 5 for index in range(8)]
    assert len(network.calls) <= 1 + 2 * 3


def test_what_does_not_fit_together_is_answered_in_parts() -> None:
    def short_of_memory(x: Array) -> Array:
        if len(x) > 2:
            raise OutOfMemory("Failed to allocate memory for requested buffer of size 12345")
        return double(x)

    one, _ = servable(short_of_memory)
    outcomes = one.execute([request(float(index)) for index in range(7)])
    assert answers(outcomes) == [[2.0 * index] for index in range(7)]
    (outcome,) = one.execute([request(1.0, 2.0, 3.0)])
    assert isinstance(outcome, InsufficientStorage)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_answer_that_is_not_finite_fails_its_own_request_only(bad: float) -> None:
    def poisoned(x: Array) -> Array:
        return np.where(x == POISON, np.float32(bad), x)

    one, _ = servable(poisoned)
    outcomes = one.execute([request(1.0), request(2.0, POISON), request(3.0)])
    assert answers(outcomes) == [[1.0], ModelOutputInvalid, [3.0]]
    wild, _ = servable(poisoned, allow_nonfinite=True)
    assert all(
        isinstance(outcome, InferResponse) for outcome in wild.execute([request(POISON), request(1.0)])
    )


def test_a_model_without_batches_runs_requests_one_by_one() -> None:
    one, network = servable(double, max_batch_size=0)
    outcomes = one.execute([request(1.0), request(2.0), request(3.0)])
    assert answers(outcomes) == [[2.0], [4.0], [6.0]]
    assert network.calls == [1, 1, 1]
    assert all(outcome.batch_size == 1 for outcome in outcomes if isinstance(outcome, InferResponse))


def test_more_rows_than_the_largest_batch_run_in_several() -> None:
    one, network = servable(double, max_batch_size=4)
    outcomes = one.execute([request(1.0, 1.0), request(2.0), request(3.0, 3.0), request(4.0)])
    assert answers(outcomes) == [[2.0, 2.0], [4.0], [6.0, 6.0], [8.0]]
    assert network.calls == [3, 3]


def test_each_request_gets_the_outputs_it_asked_for_in_its_order() -> None:
    one, _ = servable(double)
    both = request(1.0, outputs=(RequestedOutput("z"), RequestedOutput("y")))
    only = request(2.0, outputs=(RequestedOutput("z"),))
    first, second, third = one.execute([both, only, request(3.0)])
    assert isinstance(first, InferResponse)
    assert isinstance(second, InferResponse)
    assert isinstance(third, InferResponse)
    assert [output.name for output in first.outputs] == ["z", "y"]
    assert [output.name for output in second.outputs] == ["z"]
    assert [output.name for output in third.outputs] == ["y", "z"]
    assert second.output("z").data.tolist() == [[-4.0, -4.0]]


def test_an_answer_does_not_keep_its_batch_alive() -> None:
    one, _ = servable(double)
    outcomes = one.execute([request(1.0), request(2.0)])
    for outcome in outcomes:
        assert isinstance(outcome, InferResponse)
        assert outcome.outputs[0].data.base is None
        assert outcome.batch_size == 2
        assert outcome.timings.compute > 0


@pytest.mark.parametrize(
    "garble",
    [
        lambda x: x[:, :1],
        lambda x: x.astype(np.float64),
        lambda x: x[:-1],
        lambda x: np.concatenate([x, x]),
        lambda x: x.sum(),
    ],
)
def test_garbage_from_the_engine_is_an_invalid_output(garble: Body) -> None:
    one, _ = servable(garble)
    for batch in ([request(1.0)], [request(1.0), request(2.0)]):
        assert all(isinstance(outcome, ModelOutputInvalid) for outcome in one.execute(batch))


@pytest.mark.parametrize(
    ("error", "shape", "expected"),
    [
        (InputsRejected("/srv/secret"), (-1, 2), InvalidArgument),
        (BackendError("/srv/secret"), (-1, 2), Internal),
        (BackendError("/srv/secret"), (-1, -1), Unprocessable),
        (MemoryError("/srv/secret"), (-1, 2), InsufficientStorage),
        (RuntimeError("/srv/secret"), (-1, 2), Internal),
    ],
)
def test_the_caller_learns_the_kind_of_failure_and_nothing_of_the_server(
    error: Exception, shape: tuple[int, ...], expected: type[ServingError]
) -> None:
    def fail(x: Array) -> Array:
        raise error

    one, _ = servable(fail, inputs=(TensorSpec("x", DataType.FP32, shape),))
    (outcome,) = one.execute([request(1.0)])
    assert type(outcome) is expected
    assert "secret" not in outcome.message
    assert "net" in outcome.message


def test_a_free_size_is_found_by_trying() -> None:
    def needs_sixteen(x: Array) -> Array:
        if x.shape[1] < 16:
            raise BackendError("kernel larger than the image")
        return x

    one, network = servable(
        needs_sixteen,
        inputs=(TensorSpec("x", DataType.FP32, (-1, -1)),),
        outputs=(TensorSpec("y", DataType.FP32, (-1, -1)),),
    )
    one.warm_up()
    assert one.sample_request(3).inputs[0].shape == (3, 16)
    assert set(network.warmed) == set(range(1, 9))


def test_a_slow_network_is_warmed_at_one_row_only() -> None:
    def slow(x: Array) -> Array:
        time.sleep(0.4)
        return x

    one, network = servable(slow)
    one.warm_up()
    assert network.warmed == [1]


def test_a_network_that_cannot_run_at_all_is_not_warm() -> None:
    def broken(x: Array) -> Array:
        raise BackendError("no kernel")

    one, _ = servable(broken)
    with pytest.raises(BackendError):
        one.warm_up()


def test_close_unloads_the_network() -> None:
    one, network = servable(double)
    one.close()
    assert network.unloaded


@given(st.integers(0, 300))
def test_warm_up_sizes_ascend_from_one_to_the_largest_batch(limit: int) -> None:
    for sizes in (warm_up_sizes(limit), doubling_sizes(limit)):
        assert sizes == sorted(set(sizes))
        assert sizes[0] == 1
        assert sizes[-1] == max(1, limit)
        assert len(sizes) <= 10
