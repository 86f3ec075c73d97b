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
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, Field, ValidationError

from nonet.gateway.settings.loader import read_toml
from nonet.gateway.settings.schema import SettingsError
from nonet.gateway.settings.types import Section

__all__ = ["RemoteService", "load_topology"]


def _with_a_port(address: str) -> str:
    if not 0 < int(address.rpartition(":")[2]) < 65536:
        raise ValueError("no such port")
    return address


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class RemoteService:
    """One replica of a service.

    Args:
        name: of the service, e.g. ``NAME``.
        address: ``host:port`` of its gRPC face.
        lanes: batches in flight to it at a time, 1 to 1024.
        key: API key to call it with, if it wants one.

    Raises ValidationError, a ValueError, for a value that is not accepted.
    """

    name: str = Field(min_length=1, description="the name of a service")
    address: Annotated[str, AfterValidator(_with_a_port)] = Field(
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="host:port, with a port in 1..65535",
    )
    lanes: int = Field(default=8, ge=1, le=1024, strict=True, description="an integer in 1..1024")
    key: str = Field(default="", pattern="^[ -~]*$", repr=False, description="printable ASCII characters")


class _Topology(Section):
    service: Annotated[tuple[RemoteService, ...], Field(min_length=1)]


def load_topology(path: Path) -> tuple[RemoteService, ...]:
    """Read a topology file. Raises SettingsError, in one line, for anything wrong with it."""
    data = read_toml(path)
    try:
        services = _Topology(**data).service
    except ValidationError as error:
        raise SettingsError(f"{path}, {_explain(error)}") from None
    addresses = [service.address for service in services]
    twice = next((address for address in addresses if addresses.count(address) > 1), None)
    if twice is not None:
        raise SettingsError(f"{path} names the address {twice} twice")
    return services


def _explain(error: ValidationError) -> str:
    """The first problem: where it is and what is accepted; a key is not repeated."""
    known: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(RemoteService)}
    problems: list[Any] = error.errors(include_url=False)
    for problem in problems:
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            wrong, names = problem["loc"][-1], known if len(problem["loc"]) > 1 else ["service"]
            nearest = difflib.get_close_matches(wrong, names, n=1, cutoff=0.0)[0]
            return f"unknown key '{wrong}'; did you mean '{nearest}'?"
    place = problems[0]["loc"]
    if len(place) < 3:
        return "write each service as a table [[service]]"
    what = f"service {place[1] + 1}: {place[2]}"
    if problems[0]["type"] == "missing":
        return f"{what} is missing"
    got = "" if place[2] == "key" else f", got {problems[0]['input']!r}"
    return f"{what} must be {known[place[2]].description}{got}"
