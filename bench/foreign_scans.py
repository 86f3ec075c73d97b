"""How many scans of other buildings are held to be of a building, and how many of its own are not.

Each building is fitted as far as "of this building" needs it on four fifths of its scans (whole walks where
they are known). Own scans are the rest, as they are and with 30 % of the building's transmitters renamed.
Foreign ones are scans of every other building in which a share of that building's transmitters is renamed to
transmitters of this one: at random, or to such as are heard together with one drawn at random, as a neighbour
across the street would hear them. UJI buildings 0 and 1 are on one campus and share transmitters as they are.

Example: python bench/foreign_scans.py --seeds 3 --output docs/results/foreign_scans.json
Needs nonet[research] and the surveyed buildings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.sparse as sparse

from nonet.research.fis_one.data import SurveyedBuilding, load_building
from nonet.research.fis_one.graph import GraphRule, build_graph
from nonet.research.fis_one.identifier import fit_known, known_logit, leading_directions, scan_directions
from nonet.research.fis_one.identifier_fit import scan_weights
from nonet.services.floor_identification.foreign_transmitters import beside_strangers

BUILDINGS = ("5cd56bb5", "5cd969be", "cetc331", "site1", "site2", "uji0", "uji1")
CAMPUS = {"uji0", "uji1"}
SHARES = (0.05, 0.1, 0.3)
GONE = 0.3
RULE = GraphRule()
MOST = 1000
METHODS = ("network alone", "share of transmitters", "both")
NOT_OWN = ("random", "together", "campus")


class Home:
    """A building fitted as far as needed, and the scans that were held out."""

    def __init__(self, building: SurveyedBuilding, seed: int) -> None:
        generator = np.random.default_rng([seed, 9])
        groups = building.walk if building.walk is not None else np.arange(len(building.floor))
        names = generator.permutation(np.unique(groups))
        held = np.isin(groups, names[: round(0.2 * len(names))])
        inside = building.take(np.flatnonzero(~held))
        self.own = building.take(np.flatnonzero(held))
        graph = build_graph(inside.scans, RULE)
        self.transmitters = [inside.scans.transmitters[column] for column in graph.columns]
        self.weights = scan_weights(graph)
        directions = leading_directions(self.weights, 64, seed)
        known = fit_known(self.weights, directions, seed)
        self.arrays = {"directions": directions, "known_head": known}

    def judge(self, building: SurveyedBuilding, renamed: dict[str, str]) -> dict[str, float]:
        """Share of scans with a usable reading that each method holds to be of this building."""
        scans = building.scans
        column = {name: index for index, name in enumerate(self.transmitters)}
        place = np.array([column.get(renamed.get(name, name), -1) for name in scans.transmitters])
        row = np.repeat(np.arange(len(scans)), np.diff(scans.offsets))
        usable = scans.rssi >= RULE.weakest
        everything = np.bincount(row[usable], minlength=len(scans))
        ours = usable & (place[scans.transmitter] >= 0)
        weight = RULE.weigh(scans.rssi[ours]).astype(np.float32)
        shape = (len(scans), len(self.transmitters))
        rows = sparse.csr_matrix((weight, (row[ours], place[scans.transmitter[ours]])), shape=shape)
        rows = rows[everything > 0]
        heard, total = np.diff(rows.indptr), everything[everything > 0]
        logit = known_logit(self.arrays, scan_directions(self.arrays, rows), heard)
        known = np.where(heard > 0, 1 / (1 + np.exp(-logit)), 0).astype(np.float32)
        found = (known > 0.5, heard > total / 2, beside_strangers(known, heard, total - heard) > 0.5)
        return {method: round(float(each.mean()), 4) for method, each in zip(METHODS, found, strict=True)}


def renamed(home: Home, other: SurveyedBuilding, share: float, kind: str, seed: int) -> dict[str, str]:
    """Which of the other building's transmitters become which of this one's."""
    generator = np.random.default_rng([seed, 11])
    used = np.unique(other.scans.transmitter)
    count = min(max(round(share * len(used)), 1), len(home.transmitters))
    chosen = generator.choice(used, count, replace=False)
    if kind == "random":
        targets = generator.choice(len(home.transmitters), count, replace=False)
    else:
        heard = (home.weights > 0).astype(np.float32)
        anchor = heard[:, [generator.integers(heard.shape[1])]]
        targets = np.argsort(-np.asarray((anchor.T @ heard).todense()).ravel(), kind="stable")[:count]
    names = zip(chosen, targets, strict=True)
    return {other.scans.transmitters[one]: home.transmitters[target] for one, target in names}


def study(seeds: int) -> list[dict[str, object]]:
    buildings = {name: load_building(name) for name in BUILDINGS}
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        for name in BUILDINGS:
            home = Home(buildings[name], seed)
            count = round(GONE * len(home.transmitters))
            order = np.random.default_rng([seed, 19]).permutation(len(home.transmitters))
            gone = {home.transmitters[index]: f"new {index}" for index in order[:count]}
            first = {"seed": seed, "building": name, "other": name}
            rows.append({**first, "kind": "own", "share": 1.0, **home.judge(home.own, {})})
            rows.append({**first, "kind": "own, 30 % renamed", "share": 0.7, **home.judge(home.own, gone)})
            for other in BUILDINGS:
                if other == name:
                    continue
                pick = np.random.default_rng([seed, 13]).permutation(len(buildings[other].floor))[:MOST]
                foreign = buildings[other].take(np.sort(pick))
                pair = {"seed": seed, "building": name, "other": other}
                if {name, other} == CAMPUS:
                    rows.append({**pair, "kind": "campus", "share": None, **home.judge(foreign, {})})
                for kind in ("random", "together"):
                    for share in SHARES:
                        names = renamed(home, foreign, share, kind, seed)
                        taken = {
                            each: names.get(each, f"foreign {each}") for each in foreign.scans.transmitters
                        }
                        rows.append({**pair, "kind": kind, "share": share, **home.judge(foreign, taken)})
            print(f"seed {seed}, {name}: done", flush=True)
    return rows


def table(rows: list[dict[str, object]]) -> list[str]:
    """Mean over pairs and seeds of the share held to be of the building, and the worst pair and seed."""
    lines = [f"| scans | pairs x seeds | {' | '.join(METHODS)} |", "|---|---|---|---|---|"]
    for kind, share in dict.fromkeys((row["kind"], row["share"]) for row in rows):
        here = [row for row in rows if (row["kind"], row["share"]) == (kind, share)]
        name = f"{kind}, {share:.0%}" if kind in NOT_OWN and share is not None else str(kind)
        worst = max if kind in NOT_OWN else min
        cells = []
        for method in METHODS:
            values = [float(str(row[method])) for row in here]
            cells.append(f"{np.mean(values):.3f} ({worst(values):.3f})")
        lines.append(f"| {name} | {len(here)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/results/foreign_scans.json"))
    arguments = parser.parse_args()
    rows = study(arguments.seeds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"rows": rows}) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
