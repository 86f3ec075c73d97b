"""What a device costs while it computes: energy and money, as its operator declares them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """Of a device with all its lanes busy; 0 where it is not known.

    Args:
        watts: the power that it draws.
        price: what an hour of it costs, in any one currency.
    """

    watts: float = 0.0
    price: float = 0.0

    def joules(self, seconds: float, lanes: int) -> float:
        """Energy of so many ``seconds`` on one of its ``lanes``."""
        return self.watts * seconds / lanes

    def cost(self, seconds: float, lanes: int) -> float:
        """Price of so many ``seconds`` on one of its ``lanes``."""
        return self.price * seconds / 3600.0 / lanes
