"""The page on Triton: its commands and options are there, its topology is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from nonet.cli import main as cli
from nonet.gateway.process.service_names import service_names
from nonet.gateway.settings.topology import load_topology

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "triton.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_its_topology_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "topology.toml"
    path.write_text(text)
    first, second = load_topology(path, service_names())
    assert (first.kind, second.kind) == ("triton", "triton")
    assert first.control
    assert first.shared_memory == 16 << 20
    assert not second.models


def test_its_options_are_those_of_the_command() -> None:
    command = typer.main.get_command(cli.app).commands["triton-config"]  # type: ignore[attr-defined]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    named = set(
        re.findall(r"`?(--[a-z][a-z-]+)", PAGE[PAGE.index("| option") : PAGE.index("**What is the same")])
    )
    assert len(named) > 6
    assert named <= known


def test_its_first_command_writes_a_repository_for_the_onnx_backend(tmp_path: Path) -> None:
    first, second = blocks("bash")
    assert first.split() == ["nonet", "triton-config", "triton_repository"]
    assert second.split()[:2] == ["nonet", "serve"]
    target = tmp_path / "triton_repository"
    line = ["triton-config", str(target), "--repository", str(ROOT / "model_repository")]
    assert cli.main([*line, "--model", "ground_regions", "--model", "walking"]) == 0
    batching = (target / "walking" / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in batching
    assert "allow_timeout_override: true" in batching
    single = (target / "ground_regions" / "config.pbtxt").read_text()
    assert "dynamic_batching" not in single
    assert (target / "ground_regions" / "1" / "model.onnx").read_bytes() == (
        ROOT / "model_repository" / "ground_regions" / "1" / "model.onnx"
    ).read_bytes()
    assert (target / "ground.ground_regions" / "1" / "model.py").is_file()
