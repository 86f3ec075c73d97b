"""``nonet.v1.FloorIdentification``: the typed form of ``/v1/floors``, with the same answers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson

from nonet.gateway.floors import Floors, Upload, floor_answers
from nonet.gateway.grpc.jobs import job_message
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.jobs import read_key
from nonet.gateway.storage import storage_errors
from nonet.gateway.uploads import UploadBudget
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.messages import message

__all__ = ["FloorIdentification"]

_MAX_SCANS = 1024
_INLINE = 1 << 20  # bytes; more would hold up the other requests


class FloorIdentification:
    """The handlers of the service.

    Args:
        floors: fits and identifies.
        disk: accounts for the scans that go to the disk.
    """

    def __init__(self, floors: Floors, disk: UploadBudget) -> None:
        self._floors = floors
        self._disk = disk

    async def fit(self, request: Any, rpc: Rpc) -> Any:
        """Submit a fit. Raises ServingError."""
        tenant = rpc.authenticate()
        key = read_key(rpc.exchange.header(b"idempotency-key"))
        await self._floors.able()
        if bool(request.scans) == bool(request.file):
            raise InvalidArgument("send either scans or a file of scans", param="scans")
        with self._disk.open() as hold, self._floors.receiving() as path:
            content = await asyncio.to_thread(_content, request)
            hold.take(len(content))
            await asyncio.to_thread(_write, path, content)
            job, fresh = await self._floors.fit(Upload(path, _fields(request)), tenant, key)
        return message("nonet.v1.FitResponse")(job=job_message(job), replayed=not fresh)

    async def list_buildings(self, request: Any, rpc: Rpc) -> Any:
        rpc.authenticate()
        return message("nonet.v1.ListBuildingsResponse")(buildings=map(_building, self._floors.buildings()))

    async def describe_building(self, request: Any, rpc: Rpc) -> Any:
        rpc.authenticate()
        return _building(await self._floors.building(request.building))

    async def delete_building(self, request: Any, rpc: Rpc) -> Any:
        await self._floors.delete(request.building, rpc.authenticate())
        return message("nonet.v1.DeleteBuildingResponse")()

    async def identify(self, request: Any, rpc: Rpc) -> Any:
        """The floors of some scans. Raises ServingError."""
        call = rpc.read()
        started = time.perf_counter()
        if not 1 <= len(request.scans) <= _MAX_SCANS:
            raise InvalidArgument(
                f"scans must be 1 to {_MAX_SCANS} scans, got {len(request.scans)}", param="scans"
            )
        if request.ByteSize() <= _INLINE:
            scans = _readings(request)
        else:
            scans = await asyncio.to_thread(_readings, request)
        inferring = time.perf_counter()
        info, response = await self._floors.identify(request.building, scans, call)
        inferred = time.perf_counter()
        rpc.model = response.model
        reply = message("nonet.v1.IdentifyResponse")(building=request.building, version=response.version)
        for row in floor_answers(info, response):
            reply.floors.add(**{**row, "floor": row["floor"] or ""})
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply


def _readings(request: Any) -> list[bytes]:
    """Each scan of a request as JSON."""
    return [orjson.dumps(dict(scan.rssi)) for scan in request.scans]


def _content(request: Any) -> bytes:
    """The scans of a request as a file has them."""
    if request.file:
        return bytes(request.file)
    return orjson.dumps(
        [{"id": scan.id or str(index), "rssi": dict(scan.rssi)} for index, scan in enumerate(request.scans)]
    )


def _write(path: Path, content: bytes) -> None:
    with storage_errors():
        path.write_bytes(content)


def _fields(request: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "building": request.building,
        "labelled": {
            "scan": request.labelled_scan,
            "floor": request.labelled_floor,
            "position": request.labelled_position or None,
        },
        "preset": request.preset or "default",
        "seed": request.seed,
        "webhook": request.webhook,
    }
    if request.floor_names:
        if request.floors not in (0, len(request.floor_names)):
            raise InvalidArgument("floors is not the number of floor_names", param="floors")
        fields["floors"] = list(request.floor_names)
    elif request.floors:
        fields["floors"] = request.floors
    return fields


def _building(found: dict[str, Any]) -> Any:
    return message("nonet.v1.Building")(
        **{name: found[name] for name in ("building", "model", "version", "versions", "floors", "quality")},
        warnings=[str(warning) for warning in found["warnings"]],
        created=found["created"],
        facts_json=orjson.dumps(found["facts"]).decode(),
    )
