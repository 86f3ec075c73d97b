"""``GET /v1/models``: what can be named as ``model`` in the task API, in OpenAI's list shape."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.tasks.openapi_parts import MODEL, MODELS
from nonet.gateway.tasks.schemas import ModelCard, ModelList
from nonet.runtime.errors import NotFound
from nonet.runtime.json_facts import json_facts
from nonet.runtime.servable import ModelInfo

OWNER = "nonet"

# Facts for callers. Others, such as training commands and content hashes, are the operator's.
_PUBLIC = (
    "source",
    "licence",
    "credit",
    "engine",
    "precision",
    "preprocessing",
    "data",
    "measured_latencies",
    "variant",
)


def model_router(plane: DataPlane, calls: CallReader) -> APIRouter:
    """The routes ``/v1/models`` and ``/v1/models/{id}``."""
    router = APIRouter(tags=["Models"])

    @router.get("/v1/models", summary="List models", response_model=ModelList, **MODELS)
    async def models(request: Request) -> ModelList:
        calls.authenticate(RequestContext.of(request.scope))
        return ModelList(object="list", data=cards(plane))

    @router.get("/v1/models/{model}", summary="Describe a model", response_model=ModelCard, **MODEL)
    async def model(model: str, request: Request) -> ModelCard:
        calls.authenticate(RequestContext.of(request.scope))
        found = cards(plane)
        for card in found:
            if card.id == model:
                return card
        known = ", ".join(card.id for card in found) or "none"
        raise NotFound(f"unknown model {model[:80]!r}; known: {known}", param="model", code="MODEL_NOT_FOUND")

    return router


def cards(plane: DataPlane) -> list[ModelCard]:
    """One card for each family of more than one member, then one for each model; both by name."""
    newest: dict[str, ModelInfo] = {}
    for info in plane.catalog.infos():  # ascending versions: the last one wins
        if info.task and info.network:
            newest[info.name] = info
    singles = [_card(plane, info) for info in sorted(newest.values(), key=lambda info: info.network)]
    taken = {card.id for card in singles}
    families: dict[str, list[ModelCard]] = {}
    for card in singles:
        if card.family and card.family not in taken:
            families.setdefault(card.family, []).append(card)
    return [
        _family_card(name, members, plane.router.rank(members[0].task))
        for name, members in sorted(families.items())
    ] + singles


def _card(plane: DataPlane, info: ModelInfo) -> ModelCard:
    return ModelCard(
        id=info.network,
        object="model",
        created=_created(info.details),
        owned_by=OWNER,
        task=info.task,
        family=info.family,
        variants=[],
        versions=plane.catalog.versions(info.name),
        devices=plane.devices_of(info),
        quality=dict(info.quality),
        classes=len(info.labels),
        service=info.name,
        network=info.network,
        details=public_facts(info),
    )


def public_facts(info: ModelInfo) -> dict[str, Any]:
    """What callers are told of a version beyond its card's own fields. The precision of a variant is its own:
    its engine computes in what the file says, and calls that fp32."""
    facts = {name: info.details[name] for name in _PUBLIC if name in info.details}
    variant = facts.pop("variant", None)
    if variant is not None:
        facts |= {"variant": variant, "precision": variant["precision"]}
    told: dict[str, Any] = json_facts(facts)
    return told


def _family_card(name: str, members: list[ModelCard], rank: str) -> ModelCard:
    ladder = sorted(members, key=lambda card: (-card.quality.get(rank, 0.0), card.id))
    best = ladder[0]
    return best.model_copy(
        update={
            "id": name,
            "variants": [card.id for card in ladder],
            "versions": [],
            "devices": list(dict.fromkeys(device for card in ladder for device in card.devices)),
            "service": "",
            "network": "",
            "details": {},
        }
    )


def _created(details: Mapping[str, Any]) -> int:
    try:
        moment = datetime.datetime.fromisoformat(str(details.get("created", "")))
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0, int(moment.timestamp()))
