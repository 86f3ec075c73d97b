"""How long a batch takes on a device: measured once, corrected with every execution.

Algorithm: the profile is a table rows -> seconds, linear between its points, through the last two points'
slope beyond them. Reality (other lanes busy, a slower clock) is held in one correction factor: an
exponentially weighted mean of actual / predicted, each observation clamped so that one stall does not shut
the door on the requests that follow. Without a measured profile the first observation makes one.

What was learnt fades while nothing runs (half of it every :data:`HALF_LIFE` seconds): the factor towards 1,
a learnt profile towards "unknown". A prediction that refuses everything is thus tested again by and by,
where it would otherwise never meet the execution that corrects it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

HALF_LIFE = 5.0
"""Seconds without an execution after which half of what executions taught is forgotten."""

_WEIGHT = 0.1  # of a new observation; about the last ten batches count
_FACTOR_MIN, _FACTOR_MAX = 0.2, 5.0
_OBSERVATION_CLAMP = 4.0  # one observation moves the factor at most as if it were 4x off


class LatencyModel:
    """Predicts seconds per batch size for one model on one device.

    Args:
        profile: rows -> seconds as measured at warm-up; may be empty.
    """

    __slots__ = ("_factor", "_measured", "_rows", "_seconds", "_seen")

    def __init__(self, profile: Mapping[int, float] | None = None) -> None:
        self._factor = 1.0
        self._measured = False
        self._seen = 0.0
        self._rows: list[int] = []
        self._seconds: list[float] = []
        self.replace(profile or {})

    def replace(self, profile: Mapping[int, float]) -> None:
        """Take a new profile and forget the correction. Raises ValueError for rows < 1 or seconds <= 0."""
        for rows, seconds in profile.items():
            if rows < 1 or not seconds > 0:
                raise ValueError(f"a profile maps rows >= 1 to seconds > 0, got {rows}: {seconds}")
        self._rows = sorted(profile)
        # More rows never take less time; a noisy measurement must not say so.
        self._seconds = []
        for rows in self._rows:
            previous = self._seconds[-1] if self._seconds else 0.0
            self._seconds.append(max(profile[rows], previous))
        self._factor = 1.0
        self._measured = bool(profile)

    @property
    def known(self) -> bool:
        """Whether there is anything to predict from."""
        return bool(self._rows)

    def predict(self, rows: int, now: float) -> float:
        """Expected seconds for a batch of ``rows`` at the instant ``now``; 0.0 while nothing is known
        (nothing is refused)."""
        return self._base(rows) * self._faded(now)

    def observe(self, rows: int, seconds: float, now: float) -> None:
        """Learn from one execution of ``rows`` rows that took ``seconds`` and ended at ``now``."""
        if seconds <= 0:
            return
        if not self._rows:
            self._rows, self._seconds, self._seen = [rows], [seconds], now
            return
        if self._measured:
            self._factor = self._faded(now)
        self._seen = now
        ratio = seconds / self._base(rows)
        low, high = self._factor / _OBSERVATION_CLAMP, self._factor * _OBSERVATION_CLAMP
        ratio = min(max(ratio, low), high)
        self._factor += _WEIGHT * (ratio - self._factor)
        self._factor = min(max(self._factor, _FACTOR_MIN), _FACTOR_MAX)

    def _faded(self, now: float) -> float:
        """The factor with the share of it that is still remembered at ``now``."""
        kept: float = 0.5 ** (max(now - self._seen, 0.0) / HALF_LIFE)
        if self._measured:
            return 1.0 + (self._factor - 1.0) * kept
        return self._factor * kept

    def _base(self, rows: int) -> float:
        points = self._rows
        if not points:
            return 0.0
        if len(points) == 1:
            # One point: assume cost per row, the cautious reading for larger batches.
            return self._seconds[0] * max(rows / points[0], 1.0)
        place = bisect.bisect_left(points, rows)
        if place < len(points) and points[place] == rows:
            return self._seconds[place]
        if place == 0:
            return self._seconds[0]
        place = min(place, len(points) - 1)
        x0, x1 = points[place - 1], points[place]
        y0, y1 = self._seconds[place - 1], self._seconds[place]
        return y0 + (y1 - y0) * (rows - x0) / (x1 - x0)
