"""The choices of the data plane, as one small value."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class PlanePolicy:
    """Choices of the data plane.

    Args:
        default_timeout: seconds a request without a deadline may take.
        max_timeout: seconds that a caller may ask for at most; a longer wish is cut to it.
        max_in_flight_bytes: bytes of all inputs between arrival and answer; more is refused (503).
        preferred_families: families that ``model: auto`` tries first.

    Raises ValueError for a timeout or a limit that is not positive.
    """

    default_timeout: float = 30.0
    max_timeout: float = 600.0
    max_in_flight_bytes: int = 512 << 20
    preferred_families: tuple[str, ...] = ("imagenet",)

    def __post_init__(self) -> None:
        if not 0 < self.default_timeout <= self.max_timeout:
            raise ValueError(
                f"default_timeout must lie between 0 and max_timeout, got {self.default_timeout}"
            )
        if self.max_in_flight_bytes < 1:
            raise ValueError(f"max_in_flight_bytes must be positive, got {self.max_in_flight_bytes}")
