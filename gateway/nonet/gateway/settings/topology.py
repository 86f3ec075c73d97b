"""The topology file: which services run in processes of their own, and where.

    [[service]]
    name = "NAME"
    address = "127.0.0.1:9001"
    lanes = 8

A service that is named several times has several replicas. A gateway with a topology runs no model
itself: services that are not named are not served.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from pathlib import Path
from typing import Any

from nonet.gateway.settings.schema import SettingsError

__all__ = ["RemoteService", "load_topology"]

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteService:
    """One replica of a service.

    Args:
        name: of the service, e.g. ``NAME``.
        address: ``host:port`` of its gRPC face.
        lanes: batches in flight to it at a time, 1 to 1024.
        key: API key to call it with, if it wants one.

    Raises ValueError, naming the field, for a value that is not accepted.
    """

    name: str
    address: str
    lanes: int = 8
    key: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be the name of a service, got {self.name!r}")
        if not isinstance(self.address, str) or _ADDRESS.fullmatch(self.address) is None:
            raise ValueError(f"address must be host:port, got {self.address!r}")
        if not 0 < int(self.address.rpartition(":")[2]) < 65536:
            raise ValueError(f"the port of address must lie in 1..65535, got {self.address!r}")
        if isinstance(self.lanes, bool) or not isinstance(self.lanes, int) or not 1 <= self.lanes <= 1024:
            raise ValueError(f"lanes must be an integer in 1..1024, got {self.lanes!r}")
        if not isinstance(self.key, str) or not self.key.isascii() or not self.key.isprintable():
            raise ValueError("key must be a string of printable ASCII characters")


def load_topology(path: Path) -> tuple[RemoteService, ...]:
    """Read a topology file. Raises SettingsError, in one line, for anything wrong with it."""
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the topology {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    _refuse_unknown(data, ["service"], str(path))
    entries = data.get("service", [])
    if not isinstance(entries, list) or not entries:
        raise SettingsError(f"{path} names no service; write each as a table [[service]]")
    services = tuple(_service(entry, f"{path}, service {number}") for number, entry in enumerate(entries, 1))
    addresses = [service.address for service in services]
    twice = next((address for address in addresses if addresses.count(address) > 1), None)
    if twice is not None:
        raise SettingsError(f"{path} names the address {twice} twice")
    return services


def _service(entry: Any, where: str) -> RemoteService:
    if not isinstance(entry, dict):
        raise SettingsError(f"{where}: write it as a table [[service]]")
    fields = [field.name for field in dataclasses.fields(RemoteService)]
    _refuse_unknown(entry, fields, where)
    missing = [name for name in ("name", "address") if name not in entry]
    if missing:
        raise SettingsError(f"{where}: {missing[0]} is missing")
    try:
        return RemoteService(**entry)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def _refuse_unknown(data: dict[str, Any], known: list[str], where: str) -> None:
    for key in data:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise SettingsError(f"unknown key '{key}' in {where}; did you mean '{nearest}'?")
