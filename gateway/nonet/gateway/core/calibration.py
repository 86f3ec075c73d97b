"""Gives the scheduler a latency profile for what is loaded in this process, before it takes requests.

A network is measured at one row and, if that is quick, at its largest batch, a service at one row; the rest
of a service's profile is its network's plus its own share per row. What ``nonet models profile`` measured of
a network on this machine is taken as it is and saves the time. Models that run elsewhere are learnt from
their first batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping

from nonet.gateway.core.dispatcher import Dispatcher
from nonet.gateway.executor.embedded import EmbeddedDevice
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ServingError
from nonet.runtime.profile import measure_latency
from nonet.runtime.servable import HoldsMemory, ModelInfo, Servable

logger = logging.getLogger(__name__)

_BUDGET = 0.1  # seconds of measuring, by batch size
_LONGEST = 1.0  # seconds that one execution may take to be measured


class Calibrator:
    """Measures versions as they appear in the catalog.

    Versions published before :meth:`start` are measured there; later ones in the thread that publishes them.
    """

    def __init__(self, catalog: Catalog, dispatcher: Dispatcher) -> None:
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._loop: asyncio.AbstractEventLoop | None = None
        self._devices = [
            device.name for device in dispatcher.devices.values() if isinstance(device, EmbeddedDevice)
        ]
        self._known: dict[tuple[str, str], Mapping[int, float]] = {}
        catalog.on_change(self._changed)

    async def start(self) -> None:
        """Measure everything that is loaded; returns when all of it has a profile."""
        self._loop = asyncio.get_running_loop()
        for info in sorted(self._catalog.infos(), key=lambda info: info.network != ""):
            await asyncio.to_thread(self._calibrate, info)

    def stop(self) -> None:
        """Ignore further changes."""
        self._loop = None

    def _changed(self, name: str, version: str, info: ModelInfo | None) -> None:
        loop = self._loop
        if loop is None:
            return
        if info is not None:
            self._calibrate(info)
        else:
            self._known.pop((name, version), None)

    def _calibrate(self, info: ModelInfo) -> None:
        key = (info.name, info.version)
        device = next((name for name in self._devices if self._dispatcher.devices[name].serves(key)), None)
        loop = self._loop
        if device is None or loop is None:
            return
        try:
            profile = self._measure(info)
        except Exception as error:
            # It has warmed up, so it can run; without a profile it is learnt from its first batches.
            reason = error.message if isinstance(error, ServingError) else type(error).__name__
            logger.warning("model %s could not be measured: %s", info.name, reason)
            return
        finally:
            self._release_memory(info)
        self._known[key] = profile
        for name in self._devices:
            loop.call_soon_threadsafe(self._dispatcher.learn, name, key, profile)

    def _release_memory(self, info: ModelInfo) -> None:
        """Measuring took the largest batch; what that needed is several times the weights."""
        with (
            contextlib.suppress(ServingError),  # it was withdrawn meanwhile, and its memory with it
            self._catalog.lease(info.network or info.name, info.version) as lease,
        ):
            if isinstance(lease.servable, HoldsMemory):
                lease.servable.release_memory()

    def _measure(self, info: ModelInfo) -> dict[int, float]:
        largest = max(info.max_batch_size, 1)
        with self._catalog.lease(info.name, info.version) as lease:
            network = self._known.get((info.network, info.version))
            if network is None:
                return _measured_before(info) or _measure_quickly(lease.servable, largest)
            alone = _measure_quickly(lease.servable, 1)[1]
        share = max(alone - network[1], 0.0) if 1 in network else 0.0
        return {rows: seconds + share * rows for rows, seconds in network.items()}


def _measure_quickly(servable: Servable, largest: int) -> dict[int, float]:
    """A first guess at one row and the largest batch that costs little of the start: executions correct it.

    A batch of a slow network is not run for it but taken to cost what its rows cost one by one.
    """
    profile = measure_latency(servable, [1], repeats=3, budget=_BUDGET)
    if largest > 1 and profile[1] * largest <= _LONGEST:
        return profile | measure_latency(servable, [largest], repeats=3, budget=_BUDGET)
    return profile | {largest: profile[1] * largest}


def _measured_before(info: ModelInfo) -> dict[int, float]:
    """The profile that came with a network, rows to seconds; empty if there is none that can be used.

    A description that has been through JSON has its numbers of rows as text.
    """
    given = info.details.get("measured_latencies")
    if info.network or not isinstance(given, Mapping):
        return {}
    try:
        profile = {int(rows): float(seconds) for rows, seconds in given.items()}
    except (TypeError, ValueError):
        return {}
    sound = 1 in profile and all(rows >= 1 and 0.0 < seconds < math.inf for rows, seconds in profile.items())
    return profile if sound else {}
