"""Why a request was placed where it was: the members of the family, the devices, and what spoke against each.

Nothing of it is computed for a request that does not ask, and nothing of it is kept with an answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from nonet.gateway.core.choosing import Chooser
from nonet.gateway.scheduler import DeviceState, QueueKey, Scheduler
from nonet.runtime.clock import Clock
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo

LONGEST = 4096
"""Bytes of an explanation in a header."""


class Explainer:
    """See the module's text.

    Args:
        chooser: what chose.
        scheduler: what places.
        clock: of the deadlines.
    """

    def __init__(self, chooser: Chooser, scheduler: Scheduler, clock: Clock) -> None:
        self._chooser = chooser
        self._scheduler = scheduler
        self._clock = clock

    def explain(
        self, task: str, model: str, request: InferRequest, floor: float | None, chosen: ModelInfo
    ) -> dict[str, Any]:
        """The explanation, JSON-able; times are milliseconds from now, None for never or not known."""
        router = self._chooser.router
        figure = router.rank(task)
        members: Sequence[ModelInfo] = router.members(task, model) if model else ()
        if chosen.name not in {info.name for info in members}:
            members = (chosen,)
        now = self._clock.now()
        deadline = request.deadline
        candidates = []
        for info in members:
            devices = [
                self._device(device, info, request, now) for device in self._scheduler.devices.values()
            ]
            ends = [each["predicted_ms"] for each in devices if not each["excluded"]]
            candidate = {
                "model": info.network or info.name,
                "version": info.version,
                "quality": info.quality.get(figure),
                "predicted_ms": min(filter(None, ends), default=None),
                "chosen": info.name == chosen.name,
                "excluded": self._excluded(info, figure, floor, devices),
                "devices": devices,
            }
            candidates.append(candidate)
        better = "crowded"  # one that could answer in time, and would take the time of those that come next
        for candidate in candidates:
            if candidate["chosen"]:
                better = "not_best"
            elif not candidate["excluded"]:
                candidate["excluded"] = better
        return {
            "model": chosen.network or chosen.name,
            "version": chosen.version,
            "figure": figure,
            "floor": floor,
            "deadline_ms": None if deadline is None else (deadline - now) * 1e3,
            "candidates": candidates,
        }

    def concluded(self, placement: dict[str, Any], response: InferResponse, rows: int) -> dict[str, Any]:
        """The explanation with what became of it: the device, and the energy and price of this request's part
        of the batch; 0 for an answer that was there."""
        device = self._scheduler.devices.get(response.device)
        joules = cost = 0.0
        if device is not None and response.cache != "coalesced":
            part = min(rows / max(response.batch_size, 1), 1.0)
            seconds = response.timings.compute * part
            joules = device.rates.joules(seconds, device.lanes)
            cost = device.rates.cost(seconds, device.lanes)
        return {**placement, "device": response.device, "joules": joules, "cost": cost}

    def _device(
        self, device: DeviceState, info: ModelInfo, request: InferRequest, now: float
    ) -> dict[str, Any]:
        key: QueueKey = (info.name, info.version)
        deadline = math.inf if request.deadline is None else request.deadline
        fact: dict[str, Any] = {"device": device.name, "predicted_ms": None, "joules": None, "cost": None}
        if not device.healthy:
            return {**fact, "excluded": "unhealthy"}
        if not device.serves(key):
            return {**fact, "excluded": "not_served"}
        if device not in self._scheduler.able(key, now):
            return {**fact, "excluded": "ejected"}
        end = self._chooser.answered_at(info, request, deadline, on=device)
        if end is None:
            return {**fact, "excluded": "capability"}
        seconds = device.model(key).usual(self._chooser.cost_of(info, request), now)
        fact["predicted_ms"] = max(end - now, 0.0) * 1e3
        fact["joules"] = device.rates.joules(seconds, device.lanes)
        fact["cost"] = device.rates.cost(seconds, device.lanes)
        return {**fact, "excluded": "deadline" if end > deadline else ""}

    @staticmethod
    def _excluded(
        info: ModelInfo, figure: str, floor: float | None, devices: Sequence[dict[str, Any]]
    ) -> str:
        """What speaks against a member, "" if nothing."""
        if floor is not None and info.quality.get(figure, -math.inf) < floor:
            return "accuracy_floor"
        reasons = [device["excluded"] for device in devices]
        if "" in reasons:
            return ""
        for reason in ("deadline", "capability", "ejected", "unhealthy"):
            if reason in reasons:
                return reason
        return "not_served"


def compact(placement: dict[str, Any]) -> bytes:
    """An explanation as ASCII JSON of at most :data:`LONGEST` bytes; what does not fit is left out, the
    devices first, and ``truncated`` says so."""
    encoded = _ascii(placement)
    if len(encoded) <= LONGEST:
        return encoded
    few = [
        {name: value for name, value in candidate.items() if name != "devices"}
        for candidate in placement["candidates"]
    ]
    while True:
        encoded = _ascii({**placement, "candidates": few, "truncated": True})
        if len(encoded) <= LONGEST or not few:
            return encoded
        few = few[: len(few) // 2]


def _ascii(placement: dict[str, Any]) -> bytes:
    """JSON fit for a header: names of models and devices may hold anything."""
    return json.dumps(placement, separators=(",", ":")).encode("ascii")
