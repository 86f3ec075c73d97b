"""``nonet settings``: what is in force, and the reference page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nonet.cli.given_settings import given_settings

__all__ = ["settings"]


def settings(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print the reference of all settings (Markdown) instead.")
    ] = False,
) -> None:
    """Print the settings in force (file and environment laid over the defaults) as TOML, keys hidden.

    Example: nonet settings --config nonet.toml
    """
    from nonet.gateway.settings.reference import reference_page
    from nonet.gateway.settings.schema import sections

    if reference:
        print(reference_page(), end="")
        return
    values = given_settings(config).model_dump(mode="json")
    if as_json:
        print(json.dumps(values, indent=2))
        return
    blocks = [
        "\n".join([f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values[section].items())])
        for section, _ in sections()
    ]
    print("\n\n".join(blocks))


def _toml(value: Any) -> str:
    """A value of the settings as TOML; JSON's text is TOML's for all scalars and lists we have."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(name)} = {_toml(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value)
