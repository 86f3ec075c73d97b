"""How long a tile takes here, learnt from every one that was computed.

The scheduler knows one time per row, and a row is a capture of any size. So whether a large capture can be
done in time is decided here, from its number of tiles: before the first tile and again on the way.
"""

from __future__ import annotations

import threading

from nonet.runtime.errors import DeadlineExceeded, DeadlineUnattainable, ServingError

_WEIGHT = 0.2
_PATIENCE = 1.25  # refuse when more than this share of the time left would be needed


class Pace:
    """Seconds per tile, an exponentially weighted mean; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds a tile takes; 0.0 while none was computed."""
        return self._seconds

    def learn(self, tiles: int, seconds: float) -> None:
        """``tiles`` tiles took ``seconds`` together."""
        each = seconds / tiles
        with self._lock:
            self._seconds = each if self._seconds == 0 else self._seconds + _WEIGHT * (each - self._seconds)

    def objection(self, tiles: int, left: float, size: str) -> ServingError | None:
        """Why ``tiles`` more tiles cannot be computed in ``left`` seconds; None if they can.

        ``size`` names the capture in the message.
        """
        if left <= 0:
            return DeadlineExceeded("the deadline passed before the capture was developed")
        needed = tiles * self._seconds
        if needed <= left * _PATIENCE:
            return None
        return DeadlineUnattainable(
            f"developing {size} needs about {needed:.0f} s more here, and {left:.1f} s are left before the "
            "deadline; give it more time with X-Request-Timeout-Ms",
            retry_after=1.0,
        )
