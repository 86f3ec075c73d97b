"""Learning the chance of one more floor (nonet.research.fis_one.floor_count) from buildings whose floors are
known: three seeds of 5cd56bb5, 5cd969be, the same with even floors and CETC331, and made-up buildings of
2 to 12 floors with seeds 0 to 6. UJI and the malls are left out: nothing is to be tuned on them.

Prints the constants, and how the estimate does when each building (of the made-up ones: all of a seed) is
left out of the learning in turn. Evidence that the file already holds is not gathered again.

Example: python bench/learn_floor_count.py --evidence docs/results/floor_evidence.json
Needs nonet[research] and the surveyed buildings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from made_up_floors import made_up_building
from scipy.optimize import minimize

from nonet.research.fis_one import floor_count
from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.floor_count import FloorCount, count_chances, estimate_floors
from nonet.research.fis_one.floor_evidence import Evidence
from nonet.research.fis_one.graph import GraphRule, build_graph
from nonet.research.fis_one.study import load_case

CASES = ("5cd56bb5", "5cd969be", "5cd969be/164", "cetc331")
SEEDS, MADE_UP_SEEDS = 3, 7
NUMBERS = range(2, 13)
PENALTY = 0.3
SURVEYED_WEIGHT = 2.0  # there are few of them
CONSTANTS = ("_CONSTANT", "_SEPARATION", "_AGREEMENT", "_GULF")

Row = dict[str, object]


def gather(path: Path) -> list[Row]:
    """Name, what it is left out with, floors and evidence of each building."""
    rows: list[Row] = json.loads(path.read_text()) if path.is_file() else []
    done = {row["name"] for row in rows}

    def add(name: str, left_out: str, building: SurveyedBuilding, seed: int) -> None:
        usable = build_graph(building.scans, GraphRule()).scan_rows
        evidence = estimate_floors(building.scans, usable, seed).evidence
        figures = [[each.agreement, each.separation, each.gulf] for each in evidence]
        rows.append({"name": name, "with": left_out, "floors": len(building.floors), "evidence": figures})
        path.write_text(json.dumps(rows))
        print(name, flush=True)

    for seed in range(SEEDS):
        for case in CASES:
            if (name := f"{case}, seed {seed}") not in done:
                add(name, case.partition("/")[0], load_case(case, seed), seed)
    for seed in range(MADE_UP_SEEDS):
        for floors in NUMBERS:
            if (name := f"{floors} floors, seed {seed}") not in done:
                add(name, f"made up {seed}", made_up_building(floors, seed), seed)
    return rows


def evidence_of(row: Row) -> list[Evidence]:
    figures: list[list[float]] = row["evidence"]  # type: ignore[assignment]
    return [Evidence(2 + index, *each) for index, each in enumerate(figures)]


def questions(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each number up to the true one: the figures, whether there are more floors, and the weight."""
    evidence, floors = evidence_of(row), int(str(row["floors"]))
    figures, more, weight = [], [], []
    surveyed = 1.0 if str(row["with"]).startswith("made up") else SURVEYED_WEIGHT
    for index, here in enumerate(evidence[:-1]):
        if here.floors > floors:
            break
        larger = evidence[index + 1 :]
        figures.append(
            [
                1.0,
                larger[0].separation - floor_count._USUAL_SEPARATION,
                max(each.agreement for each in larger) - here.agreement,
                max(max(each.gulf for each in larger), floor_count._LEAST_GULF) - floor_count._USUAL_GULF,
            ]
        )
        more.append(here.floors < floors)
        weight.append(surveyed * (1.0 if here.floors == floors else max(floors - 2, 1) ** -0.5))
    return np.array(figures), np.array(more, float), np.array(weight)


def learn(rows: list[Row]) -> np.ndarray:
    figures, more, weight = (np.concatenate(each) for each in zip(*map(questions, rows), strict=True))
    scale = np.array([1, 1, 1, 10.0])

    def objective(constants: np.ndarray) -> tuple[float, np.ndarray]:
        logit = figures * scale @ constants
        loss = (weight * (np.logaddexp(0, logit) - more * logit)).sum() + PENALTY / 2 * (constants**2).sum()
        slope = (figures * scale).T @ (weight * (1 / (1 + np.exp(-logit)) - more)) + PENALTY * constants
        return float(loss), slope

    return minimize(objective, np.zeros(4), jac=True).x * scale


def judged(rows: list[Row], constants: np.ndarray) -> list[tuple[int, bool]]:
    """How far off each estimate is, and whether it warns."""
    for name, value in zip(CONSTANTS, constants, strict=True):
        setattr(floor_count, name, float(value))
    found = []
    for row in rows:
        evidence = evidence_of(row)
        chances = count_chances(evidence)
        best = max(chances, key=lambda each: each[1])[0]
        count = FloorCount(best, chances, tuple(evidence))
        found.append((best - int(str(row["floors"])), count.warning is not None))
    return found


def report(name: str, found: list[tuple[int, bool]]) -> None:
    off = np.array([each for each, _ in found])
    warned = np.array([each for _, each in found])
    right, near = off == 0, abs(off) <= 1
    silent = f"right {np.mean(right & ~warned):.2f}, wrong {np.mean(~right & ~warned):.2f}"
    print(
        f"{name}: {len(off)} buildings, right {right.mean():.2f}, within one {near.mean():.2f}; "
        f"without a warning {silent}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evidence", type=Path, default=Path("docs/results/floor_evidence.json"))
    rows = gather(parser.parse_args().evidence)
    for name, value in zip(CONSTANTS, learn(rows), strict=True):
        print(f"{name} = {value:.2f}")
    surveyed, made_up = [], []
    for left_out in dict.fromkeys(str(row["with"]) for row in rows):
        asked = [row for row in rows if row["with"] == left_out]
        found = judged(asked, learn([row for row in rows if row["with"] != left_out]))
        (made_up if left_out.startswith("made up") else surveyed).extend(found)
    report("surveyed, left out in turn", surveyed)
    report("made up, left out in turn", made_up)


if __name__ == "__main__":
    main()
