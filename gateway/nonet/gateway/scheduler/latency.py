"""How long a batch takes on a device, by its cost: measured once, corrected with every execution.

Cost is counted in rows of the model's sample request: a batch of eight such rows costs 8, one request that is
sixty times the work costs 60.

Algorithm: the profile is a table cost -> seconds, linear between its points, constant below the first and in
proportion to the cost beyond the last. Reality (other lanes busy, a slower clock) is held in correction
factors: exponentially weighted means of actual / predicted, each observation clamped so that one stall does
not shut the door on the requests that follow. One factor is for the range that was measured; outside of it
each octave of cost has its own, so that what is learnt from large requests does not spoil small ones. Where
nothing was measured, each octave learns its seconds per unit of cost from its first execution, and stands in
for those that have not seen any.

What was learnt fades while nothing runs (half of it every :data:`HALF_LIFE` seconds): a factor towards 1,
what was learnt without a profile towards "unknown". A prediction that refuses everything is thus tested again
by and by, where it would otherwise never meet the execution that corrects it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping

HALF_LIFE = 5.0
"""Seconds without an execution after which half of what executions taught is forgotten."""

USUAL_HALF_LIFE = 60.0
"""The same, for what devices are compared by: one that nobody asked for a while is not taken to be quick."""

_WEIGHT = 0.1  # of a new observation; about the last ten batches count
_BOUNDS = (0.2, 5.0)  # of the factor in the measured range
_WIDE_BOUNDS = (0.01, 100.0)  # of the factors outside of it, where the profile is only a guess
_OBSERVATION_CLAMP = 4.0  # one observation moves a factor at most as if it were 4x off


class _Correction:
    """Actual over predicted seconds in one range of costs.

    Args:
        unit: seconds per unit of cost, as first seen; 0.0 where the profile is what is corrected.
    """

    __slots__ = ("count", "factor", "seen", "unit")

    def __init__(self, unit: float = 0.0) -> None:
        self.factor = 1.0
        self.seen = 0.0
        self.count = 0
        self.unit = unit

    def faded(self, now: float, half_life: float = HALF_LIFE) -> float:
        """The factor with the share of it that is still remembered at ``now``."""
        kept: float = 0.5 ** (max(now - self.seen, 0.0) / half_life)
        return self.factor * kept if self.unit else 1.0 + (self.factor - 1.0) * kept

    def usual(self, now: float) -> float:
        """The factor as it is long remembered: what was measured comes back slowly, what was only learnt
        stays."""
        return self.factor if self.unit else self.faded(now, USUAL_HALF_LIFE)

    def observe(self, ratio: float, now: float, weight: float, bounds: tuple[float, float]) -> None:
        if not self.unit:
            self.factor = self.faded(now)
        self.seen = now
        self.count += 1
        ratio = min(max(ratio, self.factor / _OBSERVATION_CLAMP), self.factor * _OBSERVATION_CLAMP)
        self.factor += weight * (ratio - self.factor)
        self.factor = min(max(self.factor, bounds[0]), bounds[1])


class LatencyModel:
    """Predicts seconds by a batch's cost for one model on one device.

    Args:
        profile: rows -> seconds as measured at warm-up; may be empty.

    Raises ValueError for rows < 1 or seconds <= 0.
    """

    __slots__ = ("_costs", "_main", "_octaves", "_seconds")

    def __init__(self, profile: Mapping[int, float] | None = None) -> None:
        profile = profile or {}
        for rows, seconds in profile.items():
            if rows < 1 or not seconds > 0:
                raise ValueError(f"a profile maps rows >= 1 to seconds > 0, got {rows}: {seconds}")
        self._costs = sorted(profile)
        # More rows never take less time; a noisy measurement must not say so.
        self._seconds: list[float] = []
        for rows in self._costs:
            previous = self._seconds[-1] if self._seconds else 0.0
            self._seconds.append(max(profile[rows], previous))
        self._main = _Correction()
        self._octaves: dict[int, _Correction] = {}

    @property
    def known(self) -> bool:
        """Whether there is anything to predict from."""
        return bool(self._costs or self._octaves)

    def predict(self, cost: float, now: float) -> float:
        """Expected seconds for a batch of ``cost`` at the instant ``now``; 0.0 while nothing is known
        (nothing is refused)."""
        return self._predict(cost, lambda correction: correction.faded(now))

    def _predict(self, cost: float, factor: Callable[[_Correction], float]) -> float:
        if self._costs:
            base = self._base(cost)
            octave = self._octave(cost) if self._octaves else 0
            correction = self._octaves.get(octave, self._main) if octave else self._main
            return base * factor(correction)
        if not self._octaves:
            return 0.0
        octave = self._octave(cost)
        known = self._octaves.get(octave)
        if known is None:
            known = self._octaves[min(self._octaves, key=lambda other: abs(other - octave))]
        return known.unit * cost * factor(known)

    def usual(self, cost: float, now: float) -> float:
        """Seconds for a batch of ``cost`` as devices are compared by: :meth:`predict`, but what was learnt is
        remembered longer, and never becomes unknown again."""
        return self._predict(cost, lambda correction: correction.usual(now))

    def observe(self, cost: float, seconds: float, now: float) -> None:
        """Learn from one execution of ``cost`` that took ``seconds`` and ended at ``now``."""
        if seconds <= 0:
            return
        octave = self._octave(cost)
        if not self._costs:
            known = self._octaves.get(octave)
            if known is None:
                known = self._octaves[octave] = _Correction(seconds / cost)
                known.seen = now
            else:
                known.observe(seconds / (known.unit * cost), now, _WEIGHT, _BOUNDS)
        elif octave == 0:
            self._main.observe(seconds / self._base(cost), now, _WEIGHT, _BOUNDS)
        else:
            known = self._octaves.setdefault(octave, _Correction())
            # The first ones count fully: beyond the profile there was nothing better than a guess.
            weight = max(_WEIGHT, 1.0 / (known.count + 1))
            known.observe(seconds / self._base(cost), now, weight, _WIDE_BOUNDS)

    def _octave(self, cost: float) -> int:
        """Which range of costs: 0 for the measured one, else how many doublings away (from 1, if nothing was
        measured)."""
        if not self._costs:
            return round(math.log2(cost))
        if cost > self._costs[-1]:
            return round(math.log2(cost / self._costs[-1]))
        if cost < self._costs[0]:
            return round(math.log2(cost / self._costs[0]))
        return 0

    def _base(self, cost: float) -> float:
        points = self._costs
        if cost > points[-1]:
            return self._seconds[-1] * cost / points[-1]
        place = bisect.bisect_left(points, cost)
        if place == 0 or points[place] == cost:
            return self._seconds[place]
        x0, x1 = points[place - 1], points[place]
        y0, y1 = self._seconds[place - 1], self._seconds[place]
        return y0 + (y1 - y0) * (cost - x0) / (x1 - x0)
