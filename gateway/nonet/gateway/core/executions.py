"""Of the work that a request is, how much each execution does, and how many there will be."""

from __future__ import annotations

from nonet.runtime.servable import ModelInfo


def executions(info: ModelInfo, rows: int, cost: float, in_steps: bool) -> tuple[float, float]:
    """The cost of each execution of a request, and how many it is expected to need, at least 1.

    Args:
        info: of the model.
        rows: of the request, at least 1.
        cost: of all its executions, in rows of the model's sample request.
        in_steps: whether the model's steps are taken one by one here; else all are one execution.
    """
    if info.decoupled and in_steps:
        # A model that works in steps does one unit of cost for each row in each of them.
        return float(rows), max(cost / rows, 1.0)
    return cost, 1.0
