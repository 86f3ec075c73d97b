"""The page on placement: its topology and its settings are accepted."""

from __future__ import annotations

import re
from pathlib import Path

from nonet.gateway.process.service_names import service_names
from nonet.gateway.settings.loader import load_settings
from nonet.gateway.settings.topology import load_topology

PAGE = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()


def test_its_topology_and_its_settings_are_accepted(tmp_path: Path) -> None:
    topology, settings = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "file.toml"
    path.write_text(topology)
    dear, cheap = load_topology(path, service_names())
    assert dear.price > cheap.price > 0
    assert dear.watts > cheap.watts > 0
    path.write_text(settings)
    assert load_settings(path).scheduler.placement == "cheapest"
