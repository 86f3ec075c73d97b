"""The scheduler's limits, as one small value."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class SchedulerPolicy:
    """How much may wait, and how careful the predictions are.

    Args:
        max_queue: requests that may wait per model version; the next one is refused (503).
        safety_factor: predictions are multiplied by this before they are held against a deadline; 1.0
            trusts the profile, larger values refuse earlier and miss less.
        dispatch_overhead: seconds between the end of a batch and its answers reaching the callers.

    Raises ValueError for values out of range.
    """

    max_queue: int = 1024
    safety_factor: float = 1.05
    dispatch_overhead: float = 0.0005

    def __post_init__(self) -> None:
        if self.max_queue < 1:
            raise ValueError(f"max_queue must be at least 1, got {self.max_queue}")
        if not 1.0 <= self.safety_factor <= 10.0:
            raise ValueError(f"safety_factor must lie in 1..10, got {self.safety_factor}")
        if not 0.0 <= self.dispatch_overhead <= 1.0:
            raise ValueError(f"dispatch_overhead must lie in 0..1 s, got {self.dispatch_overhead}")
