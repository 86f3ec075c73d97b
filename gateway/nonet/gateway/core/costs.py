"""What requests cost, in rows of their model's sample request, as their tasks tell it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from nonet.runtime.errors import ServingError
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo

logger = logging.getLogger(__name__)

Cost = Callable[[InferRequest, ModelInfo], float]
"""How much work a valid request is, in units of one row of its model's sample request."""


class Costs:
    """See the module's text.

    Args:
        by_task: tells the cost of the requests of a task; where there is none, it is their rows.
    """

    def __init__(self, by_task: Mapping[str, Cost]) -> None:
        self._by_task = dict(by_task)

    def __contains__(self, task: str) -> bool:
        return task in self._by_task

    def of(self, request: InferRequest, info: ModelInfo, rows: int) -> float:
        """What a valid request costs: its rows, if nothing better or nothing sensible is known. Raises the
        ServingError of a task for a request that the model does not take."""
        tell = self._by_task.get(info.task)
        if tell is None:
            return float(rows)
        try:
            cost = float(tell(request, info))
        except ServingError:
            raise
        except Exception:
            logger.warning("the cost of a request to %s is not known", info.name, exc_info=True)
            return float(rows)
        return cost if 0.0 < cost < math.inf else float(rows)
