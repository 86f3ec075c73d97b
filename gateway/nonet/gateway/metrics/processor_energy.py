"""Energy that the processor measures (RAPL), shared out among the models that kept its lanes busy.

The counters are those of the Linux power capping framework: a folder for each package with ``energy_uj``, in
microjoules, which begins again at ``max_energy_range_uj``. Where they cannot be read, nothing is measured.
What was measured while lanes idled is nobody's.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from nonet.gateway.core.records import BatchRecord, Observer
from nonet.gateway.metrics.counters import Metrics
from nonet.runtime.clock import Clock

logger = logging.getLogger(__name__)

FOLDER = Path("/sys/class/powercap")

Key = tuple[str, str]
"""Model and version."""


class PackageCounters:
    """The counters of all packages as one that only grows.

    Args:
        folder: of the power capping framework.

    Raises OSError or ValueError if there are none, or none that may be read.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        packages = [each for each in sorted(folder.glob("intel-rapl:*")) if each.name.count(":") == 1]
        if not packages:
            raise FileNotFoundError("the processor tells no energy")
        self._ranges = {each: _number(each / "max_energy_range_uj") for each in packages}
        self._last = {each: _number(each / "energy_uj") for each in packages}
        self._total = 0

    def joules(self) -> float:
        """Energy since this was made. Raises OSError or ValueError as above."""
        for package, before in self._last.items():
            now = _number(package / "energy_uj")
            self._total += now - before if now >= before else now - before + self._ranges[package]
            self._last[package] = now
        return self._total / 1e6


def shares(joules: float, elapsed: float, lanes: int, busy: Mapping[Key, float]) -> dict[Key, float]:
    """What each model has of ``joules``, by its seconds on ``lanes`` lanes within ``elapsed`` seconds; never
    more than all together, also where an execution began before."""
    whole = max(elapsed * lanes, sum(busy.values()))
    return {key: joules * seconds / whole for key, seconds in busy.items()} if whole > 0.0 else {}


class EnergyMeter(Observer):
    """Adds measured energy to the metrics; see the module's text.

    Args:
        metrics: where it is added, at every :meth:`settle`.
        device, lanes: the device that computes with this processor.
        clock: of the time between.
        folder: of the power capping framework.

    Raises as :class:`PackageCounters`.
    """

    def __init__(
        self, metrics: Metrics, device: str, lanes: int, clock: Clock, folder: Path = FOLDER
    ) -> None:
        self._counters = PackageCounters(folder)
        self._metrics = metrics
        self._device = device
        self._lanes = lanes
        self._clock = clock
        self._since = clock.now()
        self._told = 0.0
        self._busy: defaultdict[Key, float] = defaultdict(float)
        metrics.metered.add(device)

    def on_batch(self, record: BatchRecord) -> None:
        if record.device == self._device:
            self._busy[record.model, record.version] += record.seconds

    def settle(self) -> None:
        """Share out what was measured since the last time; called before the metrics are read."""
        try:
            total = self._counters.joules()
        except (OSError, ValueError):
            logger.warning("the processor tells its energy no more")
            return
        now = self._clock.now()
        found = shares(total - self._told, now - self._since, self._lanes, self._busy)
        for (model, version), joules in found.items():
            self._metrics.add_energy(model, version, self._device, joules)
        self._told, self._since = total, now
        self._busy.clear()


def _number(file: Path) -> int:
    return int(file.read_text())
