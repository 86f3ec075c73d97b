"""repository.max_resident_bytes: more networks than fit, every request is answered; and a load teaches
nothing of how long a model takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nonet.gateway.executor import EmbeddedDevice
from nonet.gateway.executor.contract import BatchJob
from nonet.runtime.backends.residency import MemoryBudget, ResidentNetwork
from nonet.runtime.catalog import Catalog
from nonet.runtime.repository.loader import MEMORY_OF_WEIGHTS
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from tests.support import handmade_networks
from tests.support import misbehaving_servables as bad
from tests.support.running_server import running
from tests.support.scaling_network import Scale

NAMES = ("one", "two", "three")
LOAD_SECONDS = 0.5


class Doubling(bad.DoublingServable):
    """Doubles by a network that may be out of memory."""

    def __init__(self, network: ResidentNetwork) -> None:
        super().__init__()
        self._network = network

    def answer(self, batch: Sequence[InferRequest], rows: int) -> list[Outcome]:
        self._network.infer({"x": np.ones(1)}, ["y"])
        return super().answer(batch, rows)


async def test_the_load_is_left_out_of_what_an_execution_took() -> None:
    budget = MemoryBudget(1)

    def load() -> Scale:
        time.sleep(LOAD_SECONDS)
        return Scale(2)

    network = budget.load(1, load)
    budget.load(1, lambda: Scale(3))
    assert network.network is None
    device = EmbeddedDevice(1)
    await device.start()
    took: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def finished(result: list[Outcome] | BaseException, seconds: float) -> None:
        assert isinstance(result, list)
        assert isinstance(result[0], InferResponse)
        took.set_result(seconds)

    catalog = Catalog()
    servable = Doubling(network)
    catalog.publish(servable)
    with catalog.lease(servable.info.name) as lease:
        device.submit(BatchJob(lease, [bad.doubling_request(1.0)], finished, lambda *_: None))
        assert await took < LOAD_SECONDS
    assert network.network is not None
    await device.stop()


def test_more_networks_than_fit_are_all_served_within_the_budget(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for name in NAMES:
        handmade_networks.add_heavy(root, name, 4)
    size = round(MEMORY_OF_WEIGHTS * (root / "one" / "1" / "model.onnx").stat().st_size)
    settings = {
        "repository": {"max_resident_bytes": size + size // 2, "poll_seconds": 0.0},
        "cache": {"enabled": False},
        "scheduler": {"default_timeout": 300.0},
    }

    def ask(number: int) -> int:
        values = [float(number)] * 1024
        tensor: dict[str, Any] = {"name": "x", "shape": [1, 1024], "datatype": "FP32", "data": values}
        return server.infer(NAMES[number % 3], [tensor]).status_code

    with running(root, tmp_path / "server", settings) as server:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(ask, range(24))) == {200}
        assert 0 < server.metric("nonet_resident_bytes") <= size + size // 2
        assert server.metric("nonet_network_evictions_total") > 3
        assert server.metric("nonet_network_loads_total") > 6
