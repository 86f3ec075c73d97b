"""Which devices stand out against their peers, by delays or errors, and are left alone for a while.

Algorithm (outlier detection, as load balancers know it): of each device two exponentially weighted means are
kept, of actual over usual seconds and of failed executions. One whose mean is :data:`SLOW` times the median
of its peers, or that fails in more than :data:`FAILING` of its executions and three times as often as they,
is ejected for some seconds, twice as long each further time. Then it gets one execution at a time until one
tells whether it is well again.

Guarantees (tested with random histories): never more than half of the healthy devices of a group are ejected;
one that is well again comes back. An ejected device still gets what no other can run: that is the scheduler's
part.

Limits: what makes all peers slow alike is no outlier; a device without peers is never ejected.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from nonet.gateway.scheduler.devices import DeviceState

SLOW = 3.0
FAILING = 0.3
FIRST = 5.0
"""Seconds of the first ejection."""
LONGEST = 300.0

_WEIGHT = 0.2  # of a new execution
_CLAMP = 10.0  # so that one stall is no outlier
_ENOUGH = 8  # executions before a device is judged


class _Record:
    """What is known of one device."""

    __slots__ = ("count", "errors", "probing", "ratio", "times", "until")

    def __init__(self) -> None:
        self.times = 0
        self.until = 0.0
        self.probing = False
        self.begin()

    def begin(self) -> None:
        """As if it had not run yet."""
        self.count, self.ratio, self.errors = 0, 1.0, 0.0

    @property
    def seconds(self) -> float:
        """Of the latest ejection."""
        return float(min(FIRST * 2.0 ** (self.times - 1), LONGEST))


class Ejection:
    """See the module's text. Of one scheduler.

    Attributes:
        ejections: how often each device was ejected.

    Args:
        devices: all there are, by name.
        enabled: whether any is ever ejected.
    """

    def __init__(self, devices: Mapping[str, DeviceState], enabled: bool) -> None:
        self._devices = devices
        self._records = {name: _Record() for name in devices}
        self.enabled = enabled and len(devices) > 1
        self.ejections = dict.fromkeys(devices, 0)

    def rests(self, name: str, now: float) -> bool:
        """Whether a device is left alone now."""
        record = self._records[name]
        if not record.probing:
            return False
        return now < record.until or bool(self._devices[name].running)

    def resting(self, now: float) -> dict[str, int]:
        """By device, 1 if it is left alone now."""
        return {name: int(self.rests(name, now)) for name in self._devices}

    def observe(self, name: str, ratio: float | None, failed: bool, now: float) -> None:
        """An execution has ended: ``ratio`` is actual over usual seconds, None if it does not tell."""
        if not self.enabled:
            return
        record = self._records[name]
        bad = failed or (ratio is not None and ratio > SLOW)
        if record.probing:
            if now >= record.until:
                if bad:
                    self._eject(name, now)
                elif ratio is not None:
                    record.probing = False
                    record.begin()
            return
        record.count += 1
        record.errors += _WEIGHT * (failed - record.errors)
        if ratio is not None:
            record.ratio += _WEIGHT * (min(ratio, _CLAMP) - record.ratio)
        if bad and record.count >= _ENOUGH and self._stands_out(name) and self._may(name):
            self._eject(name, now)

    def _eject(self, name: str, now: float) -> None:
        record = self._records[name]
        calm = record.times > 0 and now - record.until > 2.0 * record.seconds
        record.times = 1 if calm else record.times + 1
        record.until = now + record.seconds
        record.probing = True
        self.ejections[name] += 1

    def _stands_out(self, name: str) -> bool:
        own = self._records[name]
        peers = [self._records[each] for each in self._group(name) if each != name]
        peers = [each for each in peers if not each.probing and each.count >= _ENOUGH]
        if not peers:
            return False
        usual = max(statistics.median(each.ratio for each in peers), 1.0)
        errors = statistics.median(each.errors for each in peers)
        return own.ratio > SLOW * usual or own.errors > max(FAILING, 3.0 * errors)

    def _may(self, name: str) -> bool:
        group = list(self._group(name))
        out = sum(self._records[each].probing for each in group)
        return out + 1 <= len(group) // 2

    def _group(self, name: str) -> Iterable[str]:
        """Names of the healthy devices that stand in for each other."""
        group = self._devices[name].group
        return (each for each, device in self._devices.items() if device.group == group and device.healthy)
