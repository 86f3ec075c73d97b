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
from collections import Counter
from collections.abc import Sequence
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


def load_topology(path: Path, known: Sequence[str] | None = None) -> tuple[RemoteService, ...]:
    """Read a topology file.

    Args:
        path: of the file.
        known: names of the services that there are; None takes any name.

    Raises SettingsError with everything that is wrong with the file, each in one line.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the topology {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    wrong = _unknown_keys(data, ["service"], str(path))
    entries = data.get("service", [])
    if not isinstance(entries, list) or not entries:
        raise SettingsError(*wrong, f"{path} names no service; write each as a table [[service]]")
    services: list[RemoteService] = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, service {number}"
        try:
            services.append(_service(entry, where))
        except SettingsError as error:
            wrong += error.mistakes
            continue
        name = services[-1].name
        if known is not None and name not in known:
            wrong.append(f"{where}: unknown service '{name}'; known: {', '.join(known)}")
    addresses = Counter(service.address for service in services)
    wrong += [
        f"{path} names the address {address} twice" for address, times in addresses.items() if times > 1
    ]
    if wrong:
        raise SettingsError(*wrong)
    return tuple(services)


def _service(entry: Any, where: str) -> RemoteService:
    if not isinstance(entry, dict):
        raise SettingsError(f"{where}: write it as a table [[service]]")
    fields = [field.name for field in dataclasses.fields(RemoteService)]
    wrong = _unknown_keys(entry, fields, where)
    wrong += [f"{where}: {name} is missing" for name in ("name", "address") if name not in entry]
    if wrong:
        raise SettingsError(*wrong)
    try:
        return RemoteService(**entry)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def _unknown_keys(data: dict[str, Any], known: list[str], where: str) -> list[str]:
    """What is wrong with the keys of a table that are none of ``known``."""
    return [
        f"unknown key '{key}' in {where}; did you mean "
        f"'{difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]}'?"
        for key in data
        if key not in known
    ]
