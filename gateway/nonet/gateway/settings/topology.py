"""The topology file: which services run in processes of their own, and where.

    [[service]]
    name = "NAME"
    address = "127.0.0.1:9001"
    lanes = 8

    [[service]]
    name = "gpu"
    kind = "triton"
    address = "127.0.0.1:8001"
    shared_memory = 16777216

A service that is named several times has several replicas. A gateway with a topology runs no model
itself: services that are not named are not served. A Triton server serves whatever it has: its ``name`` is
the name of a service that it stands for, or one of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field, ValidationError

from nonet.gateway.settings.loader import read_toml
from nonet.gateway.settings.schema import SettingsError
from nonet.gateway.settings.types import Section


def _with_a_port(address: str) -> str:
    if not 0 < int(address.rpartition(":")[2]) < 65536:
        raise ValueError("no such port")
    return address


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class RemoteService:
    """One replica of a service.

    Args:
        name: of the service, e.g. ``NAME``; of a Triton server, any name.
        address: ``host:port`` of its gRPC face.
        lanes: batches in flight to it at a time, 1 to 1024.
        key: API key to call it with, if it wants one.
        kind: ``nonet`` for ``nonet service`` and for other servers of the protocol, ``triton`` for a Triton
            Inference Server, ``ray`` for the gRPC ingress of Ray Serve, whose application has ``name``.
        hang_seconds: what is in flight to a server that has not answered for so long is tried elsewhere or
            fails, 1 to 3600.
        models: of a Triton server, those to serve; empty for all that it has.
        control: whether a Triton server (started with ``--model-control-mode=explicit``) is told to load
            ``models`` when it lacks them, and to load a model again that answers no more.
        shared_memory: bytes of a shared memory region for each lane of a Triton server on this machine,
            through which tensors go that fit; 0 sends all in messages.
        watts: power that the machine behind it draws while all lanes are busy; 0 for not known.
        price: of an hour of it, in any one currency; 0 for not known.

    Raises ValidationError, a ValueError, for a value that is not accepted.
    """

    name: str = Field(min_length=1, description="the name of a service")
    address: Annotated[str, AfterValidator(_with_a_port)] = Field(
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="host:port, with a port in 1..65535",
    )
    lanes: int = Field(default=8, ge=1, le=1024, strict=True, description="an integer in 1..1024")
    key: str = Field(default="", pattern="^[ -~]*$", repr=False, description="printable ASCII characters")
    kind: Literal["nonet", "triton", "ray"] = Field(default="nonet", description="nonet, triton or ray")
    hang_seconds: float = Field(default=10.0, ge=1.0, le=3600.0, description="a number in 1..3600")
    models: tuple[str, ...] = Field(default=(), description="a list of names of models")
    control: bool = Field(default=False, strict=True, description="true or false")
    shared_memory: int = Field(
        default=0, ge=0, le=1 << 30, strict=True, description="an integer in 0..1073741824"
    )
    watts: float = Field(default=0.0, ge=0.0, le=1e6, description="a number in 0..1000000")
    price: float = Field(default=0.0, ge=0.0, le=1e6, description="a number in 0..1000000")

    @pydantic.model_validator(mode="after")
    def _only_of_triton(self) -> RemoteService:
        given = [name for name in ("models", "control", "shared_memory") if getattr(self, name)]
        if given and self.kind != "triton":
            raise ValueError(f'{given[0]} is for kind = "triton" only')
        if self.control and not self.models:
            raise ValueError("control needs models: which ones to load")
        return self


class _Topology(Section):
    service: Annotated[tuple[RemoteService, ...], Field(min_length=1)]


def load_topology(path: Path, known: Sequence[str] | None = None) -> tuple[RemoteService, ...]:
    """Read a topology file.

    Args:
        path: of the file.
        known: names of the services that there are; None takes any name.

    Raises SettingsError with everything that is wrong with the file, each in one line.
    """
    data = read_toml(path)
    try:
        services = _Topology(**data).service
    except ValidationError as error:
        wrong = [f"{path}, {line}" for line in _explain(error)]
        raise SettingsError(*dict.fromkeys([*wrong, *_unknown_services(path, data, known)])) from None
    wrong = list(_unknown_services(path, data, known))
    addresses = Counter(service.address for service in services)
    wrong += [f"{path} names the address {each} twice" for each, times in addresses.items() if times > 1]
    if wrong:
        raise SettingsError(*wrong)
    return services


def _unknown_services(path: Path, data: dict[str, Any], known: Sequence[str] | None) -> Iterator[str]:
    """The entries whose service nobody knows, whatever else is wrong with them."""
    entries = data.get("service")
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(entry, dict) and entry.get("kind") == "triton":
            continue
        if known is not None and isinstance(name, str) and name not in known:
            yield f"{path}, service {number}: unknown service '{name}'; known: {', '.join(known)}"


def _explain(error: ValidationError) -> Iterator[str]:
    """The problems: where they are and what is accepted; a key is not repeated."""
    known: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(RemoteService)}
    problems: list[Any] = error.errors(include_url=False)
    for problem in problems:
        place = problem["loc"]
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            names = known if len(place) > 1 else ["service"]
            nearest = difflib.get_close_matches(place[-1], names, n=1, cutoff=0.0)[0]
            yield f"unknown key '{place[-1]}'; did you mean '{nearest}'?"
        elif problem["type"] == "value_error" and len(place) == 2:
            yield f"service {place[1] + 1}: {problem['ctx']['error']}"
        elif len(place) < 3:
            yield "write each service as a table [[service]]"
        elif problem["type"] == "missing":
            yield f"service {place[1] + 1}: {place[2]} is missing"
        else:
            got = "" if place[2] == "key" else f", got {problem['input']!r}"
            yield f"service {place[1] + 1}: {place[2]} must be {known[place[2]].description}{got}"
