"""Networks under a memory budget: put out when idle, loaded back before they run, never put out meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.runtime.backends import BackendError, BackendOptions, LoadError
from nonet.runtime.backends.residency import MemoryBudget, ResidentNetwork, take_loading_seconds
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import Unavailable
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.repository.loader import MEMORY_OF_WEIGHTS
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.tensors import Tensor
from tests.support import handmade_networks
from tests.support.scaling_network import Scale


def run(network: ResidentNetwork, value: float = 1.0) -> float:
    return float(network.infer({"x": np.array([value])}, ["y"])["y"][0])


def within(budget: MemoryBudget, networks: Sequence[ResidentNetwork]) -> bool:
    """The promise: no more than the budget, or all that is held is in use."""
    held = [each for each in networks if each.network is not None]
    assert budget.held == sum(each.size for each in held)
    return budget.held <= budget.limit or all(each.users for each in held)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    limit=st.integers(1, 20),
    steps=st.lists(st.tuples(st.sampled_from(["run", "begin", "end"]), st.integers(0, 5)), max_size=40),
)
def test_whatever_runs_the_budget_holds_unless_all_that_is_held_is_in_use(
    sizes: list[int], limit: int, steps: list[tuple[str, int]]
) -> None:
    budget = MemoryBudget(limit)
    networks = [
        budget.load(size, lambda factor=factor: Scale(factor))  # type: ignore[misc]
        for factor, size in enumerate(sizes)
    ]
    running: list[contextlib.ExitStack] = []
    for step, choice in steps:
        index = choice % len(networks)
        if step == "run":
            assert run(networks[index], 3.0) == 3.0 * index
        elif step == "begin":
            running.append(contextlib.ExitStack())
            running[-1].enter_context(budget.using(networks[index]))
        elif running:
            running.pop(choice % len(running)).close()
        assert within(budget, networks)
    for stack in running:
        stack.close()
    assert within(budget, networks)
    assert budget.loads - budget.evictions == sum(each.network is not None for each in networks)
    for network in networks:
        network.unload()
    assert budget.held == 0


def test_the_least_recently_used_goes_first() -> None:
    budget = MemoryBudget(2)
    first, second, third = (budget.load(1, lambda factor=factor: Scale(factor)) for factor in range(3))  # type: ignore[misc]
    assert [each.network is None for each in (first, second, third)] == [True, False, False]
    run(second)
    run(first)
    assert [each.network is None for each in (first, second, third)] == [False, False, True]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_runs_of_many_threads_are_all_answered_and_by_the_right_network(seed: int) -> None:
    budget = MemoryBudget(3)
    networks = [budget.load(2, lambda factor=factor: Scale(factor)) for factor in range(5)]  # type: ignore[misc]

    def work(thread: int) -> None:
        random = np.random.default_rng([seed, thread])
        for index in random.integers(0, len(networks), 30):
            assert run(networks[index], 2.0) == 2.0 * index

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert within(budget, networks)
    assert budget.held <= budget.limit


def test_one_load_serves_all_who_wait_for_it_and_the_time_is_told() -> None:
    budget = MemoryBudget(1)
    begun, may_end = threading.Event(), threading.Event()
    made: list[Scale] = []

    def slowly() -> Scale:
        if made:
            begun.set()
            assert may_end.wait(30)
        made.append(Scale(7))
        return made[-1]

    slow = budget.load(1, slowly)
    budget.load(1, lambda: Scale(1))
    assert slow.network is None

    def timed(_: int) -> tuple[float, float, float]:
        take_loading_seconds()
        answer = run(slow)
        return answer, take_loading_seconds(), take_loading_seconds()

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(timed, index) for index in range(3)]
        assert begun.wait(30)
        time.sleep(0.05)
        may_end.set()
        results = [each.result() for each in runs]
    assert len(made) == 2
    assert [answer for answer, _, _ in results] == [7.0] * 3
    assert max(seconds for _, seconds, _ in results) >= 0.05
    assert all(again == 0.0 for _, _, again in results)


def test_one_that_cannot_be_loaded_back_is_503_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = MemoryBudget(1)
    broken = False

    def load() -> Scale:
        if broken:
            raise LoadError("no such file")
        return Scale(5)

    network = budget.load(1, load)
    budget.load(1, lambda: Scale(1))
    broken = True
    with pytest.raises(Unavailable) as caught:
        run(network)
    assert caught.value.code == "MODEL_NOT_IN_MEMORY"
    assert caught.value.retry_after
    broken = False
    with pytest.raises(Unavailable):  # at once, without another attempt
        run(network)
    assert budget.held <= budget.limit
    network.retry_at = 0.0
    assert run(network) == 5.0
    network.unload()
    with pytest.raises(BackendError, match="unloaded"):
        run(network)


def test_what_cannot_be_loaded_the_first_time_says_what_the_engine_says() -> None:
    def load() -> Scale:
        raise LoadError("not a graph")

    budget = MemoryBudget(1)
    with pytest.raises(LoadError, match="not a graph"):
        budget.load(1, load)
    assert budget.held == 0


def ask(catalog: Catalog, name: str) -> Outcome:
    with catalog.lease(name) as lease:
        tensor = Tensor.of("x", np.ones((1, 1024), np.float32))
        (outcome,) = lease.servable.execute([InferRequest(model=name, inputs=(tensor,))])
    return outcome


def test_real_networks_come_back_from_files_that_did_not_change(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for name in ("one", "two"):
        handmade_networks.add_heavy(root, name, 1)
    size = round(MEMORY_OF_WEIGHTS * (root / "one" / "1" / "model.onnx").stat().st_size)
    budget = MemoryBudget(size + 1)
    catalog = Catalog()
    options = BackendOptions(concurrency=1, budget=budget)
    manager = RepositoryManager(root, catalog, options=options, store=ProfileStore(tmp_path / "cache"))
    manager.load_all()
    answers = [ask(catalog, name) for name in ("one", "two", "one", "two")]
    assert all(isinstance(answer, InferResponse) for answer in answers), answers
    assert budget.held == size
    assert budget.evictions >= 4
    (root / "one" / "1" / "model.onnx").touch()
    refused = ask(catalog, "one")
    assert isinstance(refused, Unavailable)
    assert refused.code == "MODEL_NOT_IN_MEMORY"
    manager.refresh()
    assert isinstance(ask(catalog, "one"), InferResponse)
    manager.unload("one")
    manager.unload("two")
    assert budget.held == 0
