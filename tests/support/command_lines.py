"""What files outside of Python say to ``nonet``: command lines that it takes, variables that it reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer.main

from nonet.cli.main import app

_SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"


def taken_arguments(command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters of ``nonet COMMAND ARGUMENTS``, which is not run; ClickException if it is refused."""
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    parameters: dict[str, Any] = found.make_context(command, list(arguments)).params
    return parameters


def known_variables() -> set[str]:
    """All variables of settings, and that of the cache's folder."""
    return set(re.findall(r"`(NONET_\w+)`", _SETTINGS.read_text())) | {"NONET_CACHE"}
