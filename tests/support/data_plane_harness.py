"""A data plane over real lanes with servables of the test's choice, and a recorder of what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from nonet.gateway.cache import MemoryStore, ResponseCache
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.records import BatchRecord, RequestRecord
from nonet.gateway.executor import Device, EmbeddedDevice
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.gateway.settings.schema import CacheSettings
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.composition import Composition
from nonet.runtime.requests import InferRequest, InferResponse
from tests.support import misbehaving_servables as bad


class Recorder:
    """Keeps every fact it is told."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.batches: list[BatchRecord] = []
        self.models: list[tuple[str, str, bool]] = []
        self.steps: list[tuple[int, int]] = []

    def on_request(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def on_batch(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def on_queue_depth(self, model: str, version: str, requests: int) -> None:
        assert requests >= 0

    def on_steps(self, model: str, version: str, *, taken: int, requests: int) -> None:
        assert taken >= 0 <= requests
        self.steps.append((taken, requests))

    def on_model(self, model: str, version: str, *, present: bool) -> None:
        self.models.append((model, version, present))


@asynccontextmanager
async def serving(
    *servables: bad.DoublingServable,
    lanes: int = 1,
    cached: bool = True,
    calibrate: bool = False,
    waiting: int = 200,
    costs: Mapping[str, Callable[[InferRequest], float]] | None = None,
    compositions: Mapping[str, Composition] | None = None,
    devices: Sequence[Device] | None = None,
) -> AsyncIterator[tuple[DataPlane, Recorder]]:
    catalog, clock = Catalog(), MonotonicClock()
    if calibrate:
        for servable in servables:
            catalog.publish(servable)
    cache = ResponseCache(MemoryStore(CacheSettings(), clock)) if cached else None
    plane = DataPlane(
        catalog,
        devices or [EmbeddedDevice(lanes)],
        clock=clock,
        limits=SchedulerSettings(max_queue=waiting, default_timeout=20.0),
        cache=cache,
        costs=costs,
        compositions=compositions,
    )
    recorder = Recorder()
    plane.add_observer(recorder)
    await plane.start()
    if not calibrate:
        # Published without the calibration that a start would do: the first request finds the model cold.
        plane._calibrator.stop()
        for servable in servables:
            catalog.publish(servable)
    try:
        yield plane, recorder
    finally:
        for servable in servables:
            servable.close()
        await plane.drain(5.0)
        await plane.stop()


def value_of(response: InferResponse) -> float:
    return float(response.outputs[0].data.reshape(-1)[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
