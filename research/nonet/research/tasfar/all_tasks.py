"""The tasks by name."""

from __future__ import annotations

import difflib

from nonet.research.tasfar.counting import COUNTING
from nonet.research.tasfar.housing import HOUSING, HOUSING_RAW
from nonet.research.tasfar.tasks import RegressionTask
from nonet.research.tasfar.trips import TRIPS, TRIPS_SECONDS
from nonet.research.tasfar.walking import WALKING
from nonet.runtime.errors import InvalidArgument

__all__ = ["STUDIED", "find_task"]

#: In the order of the study's tables.
STUDIED: dict[str, RegressionTask] = {
    task.name: task for task in (HOUSING, HOUSING_RAW, TRIPS, TRIPS_SECONDS, WALKING, COUNTING)
}


def find_task(name: str) -> RegressionTask:
    """A task by name; ``tiny`` is housing. Raises InvalidArgument with the nearest known one."""
    if name == "tiny":
        return HOUSING
    if name not in STUDIED:
        near = difflib.get_close_matches(name, STUDIED, n=1, cutoff=0.0)
        raise InvalidArgument(f"unknown task '{name}'; did you mean '{near[0]}'?", param="task")
    return STUDIED[name]
