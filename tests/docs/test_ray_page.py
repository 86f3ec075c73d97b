"""The page on Ray Serve and the configuration it gives away: both name what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import yaml

from nonet.gateway.process.service_names import service_names
from nonet.gateway.settings.topology import load_topology

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ray_serve.md").read_text()
CONFIG = yaml.safe_load((ROOT / "deploy" / "ray_serve" / "nonet.yaml").read_text())


def test_its_topology_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "topology.toml"
    path.write_text(text)
    assert {service.kind for service in load_topology(path, service_names())} == {"ray"}


def test_its_applications_are_services_and_its_functions_are_there() -> None:
    for application in CONFIG["applications"]:
        assert application["name"] == application["args"]["service"]
        assert application["name"] in service_names()
        module, _, function = application["import_path"].partition(":")
        source = ROOT / "gateway" / (module.replace(".", "/") + ".py")
        assert f"def {function}(" in source.read_text()
    for path in CONFIG["grpc_options"]["grpc_servicer_functions"]:
        module, _, function = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_key_that_the_page_explains_is_in_the_configuration() -> None:
    text = (ROOT / "deploy" / "ray_serve" / "nonet.yaml").read_text()
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    keys = {word for row in rows for word in re.findall(r"`([a-z_.]+)`", row)}
    assert len(keys) > 5
    for key in keys:
        assert key.rpartition(".")[2] in text, key
