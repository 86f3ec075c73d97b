"""What the operator's page says is what the programs say: commands, settings, reasons and codes."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from nonet.cli import main as cli
from nonet.gateway.process.service_names import service_names
from nonet.gateway.settings.loader import variable_name
from nonet.gateway.settings.schema import setting_keys
from nonet.gateway.settings.topology import load_topology

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
SOURCES = "\n".join(
    path.read_text() for wing in ("gateway", "runtime", "jobs") for path in (ROOT / wing).rglob("*.py")
)


def test_its_topology_file_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "topology.toml"
    path.write_text(text)
    first, second = load_topology(path, service_names())
    assert (first.name, second.name) == ("recognition", "recognition")


def test_the_settings_and_variables_that_it_names_are_there() -> None:
    keys = set(setting_keys())
    sections = {key.partition(".")[0] for key in keys}
    named = {
        word
        for word in re.findall(r"`([a-z_]+\.[a-z_]+)`", PAGE)
        if word.partition(".")[0] in sections and not word.endswith((".md", ".yml", ".toml"))
    }
    assert len(named) > 5
    assert named <= keys
    known = {variable_name(key) for key in keys} | {"NONET_CACHE"}
    assert set(re.findall(r"NONET_[A-Z_]+", PAGE)) <= known


def test_the_reasons_codes_and_metrics_that_it_names_are_there() -> None:
    reasons = re.findall(r"^\| `([a-z][^`]+)` \|", PAGE, re.MULTILINE)
    codes = {word for row in re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE) for word in row.split("`")}
    metrics = re.findall(r"`(n[a-z]+_[a-z_]+)`", PAGE)
    assert len(reasons) > 4
    assert len(metrics) > 4
    for reason in reasons:
        assert reason.replace("NAME", "{self.group}") in SOURCES, reason
    for code in codes - {"", ", "}:
        assert f'"{code}"' in SOURCES, code
    for name in metrics:
        assert f'"{name.removesuffix("_total")}"' in SOURCES, name


def test_the_commands_and_flags_that_it_names_are_there() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for name in re.findall(r"nonet (serve|service|work|models|doctor|settings)\b", PAGE):
        assert name in commands
    flags = {option for each in commands.values() for part in each.params for option in part.opts}
    ours, _, _ = PAGE.partition("## Load generators")  # which have flags of their own
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) <= flags
