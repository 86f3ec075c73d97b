"""``nonet.v1.FloorIdentification``: the typed form of ``/v1/floors``, with the same answers."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from nonet.gateway.core.upload_budget import Hold, UploadBudget
from nonet.gateway.grpc.rpc import Rpc, parse
from nonet.gateway.tasks.floors import Floors, Upload, floor_answers
from nonet.gateway.tasks.jobs_rpc import job_message
from nonet.gateway.tasks.rpc_pieces import beside, contents
from nonet.jobs import read_key
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.messages import message
from nonet.runtime.storage_errors import storage_errors

__all__ = ["FloorIdentification"]

_FIT, _IDENTIFY, _SCAN = (message(f"nonet.v1.{name}") for name in ("FitRequest", "IdentifyRequest", "Scan"))
_SCANS, _FILE = (_FIT.DESCRIPTOR.fields_by_name[name].number for name in ("scans", "file"))
_SCANS_TO_IDENTIFY = _IDENTIFY.DESCRIPTOR.fields_by_name["scans"].number

_MAX_SCANS = 1024
_LONGEST_SCAN = 2 << 20  # bytes
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

    async def fit(self, raw: bytes, rpc: Rpc) -> Any:
        """Submit a fit, given the raw request. Raises ServingError."""
        tenant = rpc.authenticate()
        key = read_key(rpc.exchange.header(b"idempotency-key"))
        await self._floors.able()
        with self._disk.open() as hold, self._floors.receiving() as path:
            fields = await asyncio.to_thread(_beside_scans, raw)
            await self._floors.check(fields, tenant)
            await asyncio.to_thread(_spool, raw, path, hold)
            job, fresh = await self._floors.fit(Upload(path, fields), tenant, key)
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

    async def identify(self, raw: bytes, rpc: Rpc) -> Any:
        """The floors of some scans, given the raw request. Raises ServingError."""
        call = rpc.read()
        started = time.perf_counter()
        if len(raw) <= _INLINE:
            building, scans = _to_identify(raw)
        else:
            building, scans = await asyncio.to_thread(_to_identify, raw)
        del raw
        inferring = time.perf_counter()
        info, response = await self._floors.identify(building, scans, call)
        inferred = time.perf_counter()
        rpc.model = response.model
        reply = message("nonet.v1.IdentifyResponse")(building=building, version=response.version)
        for row in floor_answers(info, response):
            reply.floors.add(**{**row, "floor": row["floor"] or ""})
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply


def _to_identify(raw: bytes) -> tuple[str, list[bytes]]:
    """The building that an IdentifyRequest names, and each of its scans as JSON."""
    pieces = itertools.islice(contents(raw, _SCANS_TO_IDENTIFY), _MAX_SCANS + 1)
    scans = [orjson.dumps(_rssi(_scan(index, piece), f"scan {index}")) for index, piece in enumerate(pieces)]
    if not 1 <= len(scans) <= _MAX_SCANS:
        got = "more" if scans else "none"
        raise InvalidArgument(f"scans must be 1 to {_MAX_SCANS} scans, got {got}", param="scans")
    building: str = parse(_IDENTIFY, beside(raw, _SCANS_TO_IDENTIFY)).building
    return building, scans


def _beside_scans(raw: bytes) -> dict[str, Any]:
    """The fields of a FitRequest beside its scans."""
    return _fields(parse(_FIT, beside(raw, _SCANS, _FILE)))


def _spool(raw: bytes, path: Path, hold: Hold) -> None:
    """Write the scans of a FitRequest to ``path`` as a file has them."""
    file = b""
    for file in contents(raw, _FILE):  # noqa: B007 - of several the last counts, as everywhere in protobuf
        pass
    scans = contents(raw, _SCANS)
    first = next(scans, None)
    if bool(file) == (first is not None):
        raise InvalidArgument("send either scans or a file of scans", param="scans")
    with storage_errors(), path.open("wb") as target:
        pieces = [file] if first is None else _as_json(itertools.chain([first], scans))
        for piece in pieces:
            hold.take(len(piece))
            target.write(piece)


def _as_json(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The list of scans, in pieces."""
    for index, piece in enumerate(pieces):
        scan = _scan(index, piece)
        rssi = _rssi(scan, f"scan '{scan.id[:40] or index}'")
        yield (b"," if index else b"[") + orjson.dumps({"id": scan.id or str(index), "rssi": rssi})
    yield b"]"


def _scan(index: int, piece: bytes) -> Any:
    if len(piece) > _LONGEST_SCAN:
        raise InvalidArgument(f"scan {index} is longer than {_LONGEST_SCAN} bytes", param="scans")
    return parse(_SCAN, piece)


def _rssi(scan: Any, called: str) -> dict[str, float]:
    """The readings of a scan. Raises InvalidArgument for numbers that JSON does not have."""
    rssi: dict[str, float] = dict(scan.rssi)
    for name, power in rssi.items():
        if not math.isfinite(power):
            raise InvalidArgument(
                f"{called}: rssi must be -150 to 0 dBm, got {power} for {name[:40]!r}", param="scans"
            )
    return rssi


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
