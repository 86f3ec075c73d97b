"""Is it noticed that a named floor has no scans? Each building whole, and without one of its floors.

Example: python bench/missing_floors.py
"""

from __future__ import annotations

import argparse

import numpy as np
from made_up_floors import made_up_building

from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.floor_count import FloorCount, estimate_floors
from nonet.research.fis_one.graph import GraphRule, build_graph
from nonet.research.fis_one.study import CASES, load_case

MADE_UP = ((4, 202), (6, 200), (7, 201), (9, 202), (5, 203))


def counted(building: SurveyedBuilding) -> FloorCount:
    """The estimate for the scans of a building."""
    return estimate_floors(building.scans, build_graph(building.scans, GraphRule()).scan_rows, 0)


def measure(name: str, building: SurveyedBuilding) -> str:
    """A row of the table: whether it is warned of, whole and without one of its floors."""
    floors = len(building.floors)
    cells = ["yes" if counted(building).doubt(floors) else "no"]
    for missing in (0, floors // 2, floors - 1):
        part = building.take(np.flatnonzero(building.floor != missing))
        cells.append("yes" if counted(part).doubt(floors) else "no")
    return f"| {name} | {floors} | {' | '.join(cells)} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    print("| building | floors | whole | without the first | a middle one | the last |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        print(measure(case, load_case(case, 0)), flush=True)
    for floors, seed in MADE_UP:
        building = made_up_building(floors, seed)
        print(measure(building.name, building), flush=True)


if __name__ == "__main__":
    main()
