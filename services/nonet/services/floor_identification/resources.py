"""The fitted buildings of a gateway: list, describe, picture, delete.

A fitted building is a network ``floors_<building>`` in the repository with its service
``identify.floors_<building>``; what is known of it comes from the catalog, so it is the same whether the
service runs here or elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nonet.runtime.errors import Conflict, NotFound
from nonet.runtime.host import Host
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import Blob, BlobDescription, Resource
from nonet.services.floor_identification.building_names import (
    FIT,
    PICTURE,
    SERVICE_PREFIX,
    TASK,
    building_of,
    network_of,
)

__all__ = ["RESOURCES", "find_building"]

_LARGEST_PICTURE = 32 << 20


class BuildingBody(BaseModel):
    """A fitted building."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    building: str
    object: Literal["building"]
    model: str = Field(description="Name of its network in the model repository.")
    version: str = Field(description="The version that answers.")
    versions: list[str] = Field(description="Versions that can be asked.")
    floors: list[str] = Field(description="Names of the floors, bottom first.")
    quality: dict[str, float] = Field(description="Measured figures of the fit.")
    warnings: list[Any] = Field(description="What to be careful with.")
    created: str
    facts: dict[str, Any] = Field(
        description="Scans, transmitters, evidence and the like; see docs/floors.md."
    )


class BuildingList(BaseModel):
    """Fitted buildings, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    object: Literal["list"]
    data: list[BuildingBody]


async def find_building(host: Host, name: str) -> ModelInfo:
    """The newest version of a building's service; one that is not ready is looked for in the repository.

    Raises InvalidArgument for what cannot be a name, NotFound (``BUILDING_NOT_FOUND``).
    """
    service = SERVICE_PREFIX + network_of(name)
    info = host.model(service)
    if info is None:
        await host.refresh()
        info = host.model(service)
    if info is None:
        raise _unknown(host, name)
    return info


async def _list(host: Host, parameters: Mapping[str, str], tenant: str) -> Mapping[str, Any]:
    return {"object": "list", "data": [_described(host, info) for info in _buildings(host)]}


async def _describe(host: Host, parameters: Mapping[str, str], tenant: str) -> Mapping[str, Any]:
    return _described(host, await find_building(host, parameters["building"]))


async def _picture(host: Host, parameters: Mapping[str, str], tenant: str) -> Blob:
    name = parameters["building"]
    info = await find_building(host, name)
    content = await asyncio.to_thread(_read_picture, host.repository / info.network / info.version / PICTURE)
    if content is None:
        raise NotFound(f"building '{name}' has no picture", param="building", code="PICTURE_NOT_FOUND")
    return Blob(content, "image/png", {"Cache-Control": "no-cache"})


async def _delete(host: Host, parameters: Mapping[str, str], tenant: str) -> None:
    name = parameters["building"]
    network_of(name)
    try:
        await host.remove(FIT, name, tenant)
    except Conflict:
        raise Conflict(
            f"a fit of building '{name}' waits or runs; cancel its job first, or wait for it",
            param="building",
            code="BUILDING_BUSY",
        ) from None
    except LookupError:
        raise _unknown(host, name) from None


def _buildings(host: Host) -> list[ModelInfo]:
    return [info for info in host.models(TASK) if info.name.startswith(SERVICE_PREFIX)]


def _described(host: Host, info: ModelInfo) -> dict[str, Any]:
    facts = info.details.get("building")
    facts = dict(facts) if isinstance(facts, Mapping) else {}
    return {
        "building": building_of(info.network),
        "object": "building",
        "model": info.network,
        "version": info.version,
        "versions": list(host.versions(info.name)),
        "floors": list(info.labels),
        "quality": dict(info.quality),
        "warnings": facts.pop("warnings", []),
        "created": str(info.details.get("created", "")),
        "facts": facts,
    }


def _read_picture(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_PICTURE)
    except OSError:
        return None
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None


def _unknown(host: Host, name: str) -> NotFound:
    known = ", ".join(building_of(info.network) for info in _buildings(host)[:20]) or "none"
    return NotFound(
        f"there is no building '{name}'; fitted: {known}", param="building", code="BUILDING_NOT_FOUND"
    )


_PATH = "/v1/floors/buildings"
_RPC = "nonet.v1.FloorIdentification"

RESOURCES = (
    Resource(
        verb="GET",
        path=_PATH,
        rpc=f"{_RPC}/ListBuildings",
        title="List buildings",
        description="All fitted buildings.",
        tag="Floors",
        handle=_list,
        response=BuildingList,
    ),
    Resource(
        verb="GET",
        path=_PATH + "/{building}",
        rpc=f"{_RPC}/DescribeBuilding",
        title="Describe a building",
        description="Floors, scans, quality, versions and warnings of one building.",
        tag="Floors",
        handle=_describe,
        response=BuildingBody,
        statuses=(404, 422),
    ),
    Resource(
        verb="DELETE",
        path=_PATH + "/{building}",
        rpc=f"{_RPC}/DeleteBuilding",
        title="Delete a building",
        description="Removes the building with all its versions; requests in flight are still answered. "
        "409 while a fit of it waits or runs, 403 for a building that another tenant has fitted.",
        tag="Floors",
        handle=_delete,
        statuses=(403, 404, 409, 422, 501, 507),
    ),
    Resource(
        verb="GET",
        path=_PATH + "/{building}/picture",
        rpc="",
        title="Picture of a building",
        description="The clusters of scans in the plane, the spillover between floors, and the order that "
        "was found, as PNG.",
        tag="Floors",
        handle=_picture,
        response=BlobDescription("The picture.", ("image/png",)),
        statuses=(404, 422),
    ),
)
