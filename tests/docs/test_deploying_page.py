"""What the page on deployment names is there: settings, variables, values of the chart, alerts, commands."""

from __future__ import annotations

import re
from pathlib import Path

import typer
import yaml

from nonet.cli import main as cli
from nonet.gateway.settings.loader import load_settings
from nonet.gateway.settings.schema import setting_keys
from tests.support.command_lines import known_variables
from tests.support.dashboard_queries import alert_expressions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploying.md").read_text()
CHART = yaml.safe_load((ROOT / "deploy" / "helm" / "nonet" / "values.yaml").read_text())


def paths(values: object, before: str = "") -> set[str]:
    """All values of the chart as ``section.name``."""
    if not isinstance(values, dict):
        return {before}
    below = {path for name, value in values.items() for path in paths(value, f"{before}.{name}".lstrip("."))}
    return below | {before}


def test_the_settings_and_values_that_it_names_are_there() -> None:
    settings, values = set(setting_keys()), paths(CHART)
    known = settings | values
    sections = {key.partition(".")[0] for key in known}
    named = {
        word.partition("=")[0]
        for word in re.findall(r"`([a-z]+\.[a-zA-Z_]+)`", PAGE)
        if word.partition(".")[0] in sections
    }
    assert named & settings
    assert named & values
    assert named <= known
    assert set(re.findall(r"NONET_[A-Z_]+", PAGE)) <= known_variables()
    assert set(re.findall(r"--set ([\w.]+)=", PAGE)) <= values


def test_the_alerts_and_commands_that_it_names_are_there() -> None:
    assert set(re.findall(r"`(Nonet[A-Z]\w+)`", PAGE)) <= alert_expressions().keys()
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"`nonet ([a-z]+)", PAGE))
    assert named
    assert named <= commands.keys()


def test_the_settings_of_the_small_machine_are_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "nonet.toml"
    path.write_text(text)
    settings = load_settings(path)
    assert settings.scheduler.lanes == 1
    assert settings.jobs.concurrency == 0
