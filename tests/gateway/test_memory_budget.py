"""repository.max_resident_bytes on a real server: more networks than fit, and every request is answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import handmade_networks
from tests.support.running_server import running

NAMES = ("one", "two", "three")


def test_more_networks_than_fit_are_all_served_within_the_budget(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for name in NAMES:
        handmade_networks.add_heavy(root, name, 4)
    size = (root / "one" / "1" / "model.onnx").stat().st_size
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
