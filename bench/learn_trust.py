"""How far agreement of partitions says that the floors found are right: the constants of `Clusters.trust`.

Fits the surveyed buildings (one label, the number of floors given) and made-up ones, and learns the share of
scans on their right floor beyond chance from the agreement. Each surveyed case has a weight of one, the
made-up ones together of four; then each surveyed building is left out in turn.

Example: python bench/learn_trust.py --seeds 3 --output docs/results/floor_trust.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from made_up_floors import made_up_building
from scipy.optimize import minimize

from nonet.research.fis_one.building import FitOptions
from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.study import CASES, load_case

MADE_UP = "made up"
FLOORS = (3, 4, 5, 6, 8, 10)
FIRST_MADE_UP = 300
MADE_UP_WEIGHT = 4.0
_TINY = 1e-6

Row = dict[str, object]


def measure(building: SurveyedBuilding, seed: int) -> Row:
    """Agreement of a fit, its accuracy, and the share of scans on their right floor beyond chance."""
    options = FitOptions(names=building.floors, seed=seed)
    fitted = fit_building(building.scans, building.label(seed), options)
    used = fitted.floor_of_scan >= 0
    accuracy = float((fitted.floor_of_scan == building.floor)[used].mean())
    chance = 1 / len(building.floors)
    return {
        "floors": len(building.floors),
        "agreement": fitted.facts["quality"]["agreement"],
        "accuracy": round(accuracy, 4),
        "beyond_chance": round(float(np.clip((accuracy - chance) / (1 - chance), 0, 1)), 4),
    }


def learn(rows: list[Row]) -> tuple[float, float]:
    """The agreement of even odds and the steepness."""
    cases = [str(row["case"]) for row in rows]
    weight = np.array([(MADE_UP_WEIGHT if case == MADE_UP else 1.0) / cases.count(case) for case in cases])
    agreement = np.array([row["agreement"] for row in rows], float)
    share = np.array([row["beyond_chance"] for row in rows], float)

    def loss(constants: np.ndarray) -> float:
        trust = np.clip(curve(agreement, *constants), _TINY, 1 - _TINY)
        return -float((weight * (share * np.log(trust) + (1 - share) * np.log(1 - trust))).sum())

    found = minimize(loss, [0.8, 25.0], method="Nelder-Mead").x
    return float(found[0]), float(found[1])


def curve(agreement: np.ndarray, even: float, steepness: float) -> np.ndarray:
    """Trust for each agreement."""
    return 1 / (1 + np.exp(-steepness * (agreement - even)))


def left_out(rows: list[Row]) -> list[str]:
    """A markdown table: each surveyed building's share, and what is expected of it without having seen it."""
    lines = [
        "| building | agreement | right beyond chance | expected, not having seen it |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(str(row["case"]).partition("/")[0] for row in rows if row["case"] != MADE_UP):
        here = [row for row in rows if str(row["case"]).partition("/")[0] == name]
        constants = learn([row for row in rows if row not in here])
        agreement = np.array([row["agreement"] for row in here], float)
        share = np.array([row["beyond_chance"] for row in here], float)
        expected = curve(agreement, *constants).mean()
        lines.append(f"| {name} | {agreement.mean():.2f} | {share.mean():.2f} | {expected:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/results/floor_trust.json"))
    arguments = parser.parse_args()
    rows: list[Row] = []
    for seed in range(arguments.seeds):
        for case in CASES:
            rows.append({"case": case, "seed": seed, **measure(load_case(case, seed), seed)})
            print(rows[-1], flush=True)
        for floors in FLOORS:
            building = made_up_building(floors, FIRST_MADE_UP + seed)
            rows.append({"case": MADE_UP, "seed": seed, **measure(building, seed)})
            print(rows[-1], flush=True)
    rows = [row for row in rows if row["agreement"] is not None]
    even, steepness = learn(rows)
    print(f"even at an agreement of {even:.3f}, steepness {steepness:.1f}")
    print("\n".join(left_out(rows)))
    arguments.output.write_text(
        json.dumps({"even": even, "steepness": steepness, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
