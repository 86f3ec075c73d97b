"""What the commands that start a process are given: settings in layers, and a topology.

All of it is looked at before the process itself is imported, so that what is wrong is said at once, and all
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonet.cli.failure import WronglyGiven

if TYPE_CHECKING:
    from nonet.gateway.settings.schema import Settings
    from nonet.gateway.settings.topology import RemoteService

__all__ = ["given_settings", "given_topology", "wrongly_given"]


def given_settings(
    config: Path | None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    listens: bool = False,
) -> Settings:
    """The settings in force. Raises WronglyGiven with all that is wrong with them; see
    :func:`given_topology`."""
    return given_topology(config, flags, None, listens=listens)[0]


def given_topology(
    config: Path | None,
    flags: Mapping[str, Mapping[str, Any]] | None,
    topology: Path | None,
    *,
    listens: bool = True,
) -> tuple[Settings, Sequence[RemoteService]]:
    """The settings in force and the services of a topology file, () without one.

    With ``listens`` they are those of a process that others can call, who must then have keys. Raises
    WronglyGiven with all that is wrong with both.
    """
    from nonet.gateway.process.service_names import service_names
    from nonet.gateway.settings.loader import load_settings
    from nonet.gateway.settings.reach import check_reach
    from nonet.gateway.settings.schema import SettingsError
    from nonet.gateway.settings.topology import load_topology

    wrong: list[str] = []
    settings: Settings | None = None
    services: Sequence[RemoteService] = ()
    try:
        settings = load_settings(config, flags)
        if listens:
            check_reach(settings)
    except SettingsError as error:
        wrong += error.mistakes
    if topology is not None:
        try:
            services = load_topology(topology, service_names())
        except SettingsError as error:
            wrong += error.mistakes
    if settings is None or wrong:
        raise wrongly_given(wrong)
    return settings, services


def wrongly_given(mistakes: Sequence[str]) -> WronglyGiven:
    """The failure that names all of ``mistakes`` in one line."""
    if len(mistakes) == 1:
        return WronglyGiven(mistakes[0])
    numbered = "; ".join(f"({number}) {mistake}" for number, mistake in enumerate(mistakes, 1))
    return WronglyGiven(f"{len(mistakes)} mistakes: {numbered}")
