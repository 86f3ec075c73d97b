"""Engines measured as the server runs: in its idle moments, the most used first, for so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nonet.gateway.core.records import BatchRecord
from nonet.gateway.process.engine_measuring import EngineMeasuring
from nonet.runtime.backends import BackendOptions, installed_backends
from nonet.runtime.catalog import Catalog
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import Tensor
from tests.support import handmade_networks
from tests.support.running_server import eventually, running

OPTIONS = BackendOptions(concurrency=1)
NAMES = ("one", "two", "three")


class Site:
    """A repository of three classifiers that are loaded, and what would measure them."""

    def __init__(self, folder: Path, seconds: float, busy: Callable[[], bool] = lambda: False) -> None:
        root = folder / "models"
        root.mkdir()
        for width, name in enumerate(NAMES, 6):
            handmade_networks.add_classifier(root, name, width, family="tiny", top1=0.5)
        self.store = ProfileStore(folder / "cache")
        self.catalog = Catalog()
        self.manager = RepositoryManager(root, self.catalog, options=OPTIONS, store=self.store)
        self.manager.load_all()
        self.measuring = EngineMeasuring(self.catalog, self.manager, OPTIONS, seconds, busy, store=self.store)

    def stored(self, name: str) -> bool:
        return self.store.read(str(self.catalog.info(name).details["content"])) is not None


def ran(model: str) -> BatchRecord:
    return BatchRecord(model, "1", "cpu", 1, 1, 0.001, failed=False)


def test_the_most_used_is_measured_first_and_all_of_them_once(tmp_path: Path) -> None:
    site = Site(tmp_path, 300.0)
    for name in ("two", "two", "three"):
        site.measuring.on_batch(ran(name))
    before = site.catalog.lease("two")
    site.measuring.start()
    site.measuring.join()
    assert site.measuring.measured == ["two", "three", "one"]
    for name in NAMES:
        assert site.stored(name)
        details = site.catalog.info(name).details
        assert details["measured_latencies"], "published anew, with what was measured"
        chosen = site.store.read(str(details["content"]))
        assert chosen is not None
        assert (details["engine"], details["precision"]) == (chosen.choice.engine, chosen.choice.precision)
    # What was leased before the swap still answers.
    image = np.zeros((1, 3, handmade_networks.IMAGE_SIZE, handmade_networks.IMAGE_SIZE), np.float32)
    request = InferRequest(model="two", inputs=(Tensor.of("image", image),))
    (answer,) = before.servable.execute([request])
    assert isinstance(answer, InferResponse)
    before.release()
    again = EngineMeasuring(site.catalog, site.manager, OPTIONS, 300.0, lambda: False, store=site.store)
    again.start()
    again.join()
    assert again.measured == []


def test_nothing_is_measured_while_something_is_executed(tmp_path: Path) -> None:
    asked, idle = threading.Semaphore(0), threading.Event()

    def busy() -> bool:
        asked.release()
        return not idle.is_set()

    site = Site(tmp_path, 300.0, busy)
    site.measuring.start()
    for _ in range(5):
        assert asked.acquire(timeout=30)
    assert site.measuring.measured == []
    assert not any(map(site.stored, NAMES))
    idle.set()
    site.measuring.join()
    assert sorted(site.measuring.measured) == sorted(NAMES)


@pytest.mark.parametrize("how", ["no time", "leaving"])
def test_it_ends_when_its_time_is_over_or_the_server_leaves(tmp_path: Path, how: str) -> None:
    site = Site(tmp_path, 1e-9 if how == "no time" else 300.0, busy=lambda: how == "leaving")
    site.measuring.start()
    if how == "leaving":
        site.measuring.stop()
    site.measuring.join()
    assert not any(map(site.stored, NAMES))


@pytest.mark.skipif(len(installed_backends()) < 2, reason="the extra openvino is not installed")
def test_a_real_server_measures_and_serves_on(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    handmade_networks.add_classifier(root, "net", 8, family="tiny", top1=0.5)
    settings = {"repository": {"measure_seconds": 300.0, "poll_seconds": 0.0}}
    with running(root, tmp_path / "server", settings) as server:

        def measured() -> bool:
            card = server.http.get("/v1/models/net")
            assert card.status_code == 200
            return "measured_latencies" in card.json()["details"]

        eventually(measured, "the network is measured and published anew", 120.0)
        assert "model net was measured" in server.log
