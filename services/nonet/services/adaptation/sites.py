"""The models of single sites: list, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nonet.runtime.errors import Conflict, InvalidArgument, NotFound
from nonet.runtime.host import Host
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import Resource
from nonet.services.adaptation.names import KIND, TASK, site_model, split_site

__all__ = ["RESOURCES"]


class SiteBody(BaseModel):
    """A model that was adapted to a site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: str
    object: Literal["site"]
    model: str = Field(description="Its name, to be asked by: `model@site`.")
    version: str = Field(description="The version that answers.")
    versions: list[str] = Field(description="Versions that can be asked.")
    quality: dict[str, float] = Field(description="Figures of its adaptation; none needed a label.")
    lineage: dict[str, Any] = Field(
        description="What it was made of: parent model and version, job, rows, decision."
    )
    created: str


class SiteList(BaseModel):
    """The sites of a model, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    object: Literal["list"]
    data: list[SiteBody]


async def _list(host: Host, parameters: Mapping[str, str], tenant: str) -> Mapping[str, Any]:
    model = parameters["model"]
    infos = host.models(TASK)
    if not any(info.network == model for info in infos):
        known = ", ".join(info.network for info in infos[:20]) or "none"
        raise NotFound(
            f"there is no regressor '{model[:140]}'; known: {known}", param="model", code="MODEL_NOT_FOUND"
        )
    found = [info for info in infos if split_site(info.network)[0] == model and "@" in info.network]
    return {"object": "list", "data": [_described(host, info) for info in found]}


async def _delete(host: Host, parameters: Mapping[str, str], tenant: str) -> None:
    model, site = parameters["model"], parameters["site"]
    if not site:
        raise InvalidArgument("field 'site' is empty", param="site")
    name = site_model(model, site)
    try:
        await host.remove(KIND, name, tenant)
    except Conflict:
        raise Conflict(
            f"an adaptation of '{name}' waits or runs; cancel its job first, or wait for it",
            param="site",
            code="SITE_BUSY",
        ) from None
    except LookupError:
        raise NotFound(
            f"there is no site '{site}' of '{model[:128]}'", param="site", code="SITE_NOT_FOUND"
        ) from None


def _described(host: Host, info: ModelInfo) -> dict[str, Any]:
    source = info.details.get("source")
    lineage = source.get("lineage", {}) if isinstance(source, Mapping) else {}
    return {
        "site": split_site(info.network)[1],
        "object": "site",
        "model": info.network,
        "version": info.version,
        "versions": list(host.versions(info.name)),
        "quality": dict(info.quality),
        "lineage": dict(lineage) if isinstance(lineage, Mapping) else {},
        "created": str(info.details.get("created", "")),
    }


_PATH = "/v1/adapt/{model}/sites"
_RPC = "nonet.v1.Adaptation"

RESOURCES = (
    Resource(
        verb="GET",
        path=_PATH,
        rpc=f"{_RPC}/ListSites",
        title="List sites",
        description="The models that `model` was adapted to single sites as, each with what it was made of.",
        tag="Regression",
        handle=_list,
        response=SiteList,
        statuses=(404, 422),
    ),
    Resource(
        verb="DELETE",
        path=_PATH + "/{site}",
        rpc=f"{_RPC}/DeleteSite",
        title="Delete a site",
        description="Removes the model of a site with all its versions; requests in flight are still "
        "answered. 409 while an adaptation of it waits or runs, 403 for another tenant's.",
        tag="Regression",
        handle=_delete,
        statuses=(403, 404, 409, 422, 501, 507),
    ),
)
