"""The manager, its services and its neighbours: derived models, reloads under load, a vanished folder."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nonet.runtime.errors import Conflict, Unavailable
from nonet.runtime.repository import ChangeKind
from nonet.runtime.servable import Servable
from tests.support import handmade_networks
from tests.support.managed_repository import ManagedRepository
from tests.support.misbehaving_servables import DoublingServable, FailingWarmUpServable, doubling_info


def derive_doubler(network: Servable) -> Sequence[Servable]:
    return [DoublingServable(doubling_info(f"double.{network.info.name}", network.info.version))]


def test_services_live_and_die_with_their_network(tmp_path: Path) -> None:
    root = tmp_path / "models"
    handmade_networks.add_scaled(root, "scaled", 10, 1)
    made: list[DoublingServable] = []

    def derive(network: Servable) -> Sequence[Servable]:
        made.append(DoublingServable(doubling_info(f"double.{network.info.name}", network.info.version)))
        return made[-1:]

    managed = ManagedRepository(root, tmp_path / "cache", derive=[derive])
    managed.manager.load_all()
    assert managed.ask("double.scaled") == 2.0
    for action in (managed.manager.load, managed.manager.unload):
        with pytest.raises(Conflict, match="service of network 'scaled'"):
            action("double.scaled")
    managed.manager.unload("scaled")
    assert made[0].closed.is_set()
    with pytest.raises(Unavailable):
        managed.ask("double.scaled")
    managed.manager.load("scaled")
    assert managed.ask("double.scaled") == 2.0
    shutil.rmtree(root / "scaled")
    managed.manager.refresh()
    assert made[1].closed.is_set()
    assert managed.catalog.index() == []


def test_a_service_may_not_take_the_name_of_a_model(tmp_path: Path) -> None:
    root = tmp_path / "models"
    handmade_networks.add_scaled(root, "scaled", 10, 1)
    handmade_networks.add_scaled(root, "double.scaled", 30, 1)
    managed = ManagedRepository(root, tmp_path / "cache", derive=[derive_doubler])
    changes = {change.model: change for change in managed.manager.load_all()}
    assert changes["double.scaled"].kind is ChangeKind.LOADED
    assert "would take the name of another model" in changes["scaled"].reason
    assert managed.ask("double.scaled") == 30.0


def test_a_model_whose_service_does_not_warm_up_is_not_served(tmp_path: Path) -> None:
    root = tmp_path / "models"
    handmade_networks.add_scaled(root, "scaled", 10, 1)
    made: list[FailingWarmUpServable] = []

    def derive(network: Servable) -> Sequence[Servable]:
        made.append(FailingWarmUpServable(doubling_info("double.scaled")))
        return made[-1:]

    managed = ManagedRepository(root, tmp_path / "cache", derive=[derive])
    (change,) = managed.manager.load_all()
    assert change.kind is ChangeKind.FAILED
    assert made[0].closed.is_set()
    assert managed.catalog.infos() == []
    assert managed.manager.refresh() == [], "not before its time"
    managed.clock.advance(1.1)
    assert managed.did() == [("scaled", "1", "failed")]
    managed.clock.advance(1.1)
    assert managed.did() == [], "the delay grows"
    managed.clock.advance(1.1)
    assert managed.did() == [("scaled", "1", "failed")]


@pytest.fixture
def asking(managed: ManagedRepository) -> Iterator[tuple[list[float], list[BaseException]]]:
    """Threads that ask ``scaled`` without a pause until the end of the test."""
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    answers: list[float] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                answers.append(managed.ask())
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield answers, failures
    stop.set()
    for thread in threads:
        thread.join()


def test_reloads_under_load_fail_no_request(
    managed: ManagedRepository, asking: tuple[list[float], list[BaseException]]
) -> None:
    answers, failures = asking
    for step in range(2, 12):
        handmade_networks.add_scaled(managed.root, "scaled", 10.0 * step, step)
        if step % 3 == 0:
            (managed.root / "scaled" / str(step) / "model.onnx").write_bytes(b"broken")
        managed.manager.refresh()
        shutil.rmtree(managed.root / "scaled" / str(step - 2), ignore_errors=True)
        managed.manager.refresh()
        count = len(answers)
        while len(answers) < count + 5 and not failures:
            os.sched_yield()
    assert failures == []
    assert answers[-1] == 110.0


def test_work_on_one_model_does_not_wait_for_another(managed: ManagedRepository) -> None:
    handmade_networks.add_scaled(managed.root, "busy", 10, 1)
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    lease = managed.catalog.lease("busy")
    waiting = threading.Thread(target=managed.manager.unload, args=("busy", None))
    waiting.start()
    managed.manager.unload("scaled")
    managed.manager.load("scaled")
    assert managed.ask() == 10.0
    lease.release()
    waiting.join()


def test_a_repository_that_vanishes_unloads_nothing(managed: ManagedRepository, tmp_path: Path) -> None:
    handmade_networks.add_scaled(managed.root, "scaled", 10, 1)
    managed.manager.load_all()
    managed.root.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        managed.manager.refresh()
    assert managed.ask() == 10.0
    (tmp_path / "away").rename(managed.root)
    assert managed.manager.refresh() == []
