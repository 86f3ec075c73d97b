"""The study behind docs/results/fis_one: each building, method and seed, with one label a run."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonet.research.fis_one.baselines import BASELINES, ceiling
from nonet.research.fis_one.building import FitOptions, FittedBuilding
from nonet.research.fis_one.data import SurveyedBuilding, load_building
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.graph import GraphRule, build_graph
from nonet.research.fis_one.identifier import identify
from nonet.research.fis_one.indexing import order_clusters, path_costs
from nonet.research.fis_one.metrics import FloorScores, score_floors
from nonet.research.fis_one.recipes import DEFAULT, PAPER, Recipe
from nonet.research.fis_one.spillover import adapted_jaccard, heard_counts

CASES = ("5cd56bb5", "5cd969be/164", "5cd969be", "cetc331", "site1", "site2", "uji0", "uji1")
"""Buildings by name; ``/n`` draws n scans of each floor, by the seed (the paper's protocol)."""

FITS: dict[str, Recipe] = {
    "FIS-ONE, default": DEFAULT,
    "FIS-ONE, paper": PAPER,
    "FIS-ONE, paper, no attention": dataclasses.replace(PAPER, attention="none"),
}
CEILING = "kNN with all labels"
SERVING = "new scans"
METHODS = (*FITS, *BASELINES, CEILING, SERVING)
SCORES = ("ari", "nmi", "edit", "accuracy")

Row = dict[str, Any]
_HELD_OUT = 0.2
_BINS = 10


def load_case(case: str, seed: int, root: Path | None = None) -> SurveyedBuilding:
    """A case of CASES. Raises KeyError for another name, FileNotFoundError without its data."""
    name, _, per_floor = case.partition("/")
    building = load_building(name, root)
    return building.balanced(int(per_floor), seed) if per_floor else building


def run_study(
    cases: Iterable[str],
    methods: Iterable[str],
    seeds: int,
    *,
    results: Path | None = None,
    root: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """One row for each case, method and seed: the four scores and the CPU seconds.

    With ``results`` (JSON) rows are written as they come, and those already there are not measured again.
    ``report`` gets a line with what there is to do, and one for each row as it ends.
    """
    rows: list[Row] = []
    if results is not None and results.is_file():
        rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    done = {(row["case"], row["method"], row["seed"]) for row in rows}
    asked = list(itertools.product(range(seeds), cases, methods))
    left = [each for each in asked if (each[1], each[2], each[0]) not in done]
    there = f", {len(asked) - len(left)} are there already" if len(left) < len(asked) else ""
    report(f"{len(left)} rows to measure{there}")
    for number, (seed, case, method) in enumerate(left, 1):
        row = measure(load_case(case, seed, root), method, seed)
        found = "does not apply" if row is None else row
        report(f"{number} of {len(left)}: {case}, {method}, seed {seed}: {found}")
        if row is None:
            continue
        rows.append({"case": case, "method": method, "seed": seed, **row})
        if results is not None:
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    return rows


def measure(building: SurveyedBuilding, method: str, seed: int) -> Row | None:
    """The scores of one method, or None if it does not apply to the building."""
    started = time.process_time()
    if method == SERVING:
        row = serve_new_scans(building, seed)
    elif method in FITS:
        fitted = _fit(building, FITS[method], seed)
        used = fitted.floor_of_scan >= 0
        found = score_floors(building.floor[used], fitted.floor_of_scan[used], len(building.floors))
        row = _scores(found)
    else:
        placed, truth = _placed(building, method, seed)
        if placed is None:
            return None
        row = _scores(score_floors(truth, placed, len(building.floors)))
    return {**row, "cpu_seconds": round(time.process_time() - started, 1)}


def serve_new_scans(building: SurveyedBuilding, seed: int) -> Row:
    """Fit on four fifths of the scans (whole walks where they are known), identify the rest as new scans.

    Gives the accuracy on both, the calibration error of the confidence (Guo et al. 2017, ten bins) and the
    share of new scans held to be of this building.
    """
    generator = np.random.default_rng([seed, 9])
    groups = building.walk if building.walk is not None else np.arange(len(building.floor))
    names = generator.permutation(np.unique(groups))
    held = np.isin(groups, names[: round(_HELD_OUT * len(names))])
    inside = building.take(np.flatnonzero(~held))
    outside = building.take(np.flatnonzero(held))
    fitted = _fit(inside, DEFAULT, seed)
    used = fitted.floor_of_scan >= 0
    distribution, known = identify(fitted.network, outside.scans.dense(fitted.transmitters))
    right = distribution.argmax(1) == outside.floor
    return {
        "accuracy": round(float((fitted.floor_of_scan == inside.floor)[used].mean()), 4),
        "accuracy_new": round(float(right.mean()), 4),
        "calibration_error": round(calibration_error(distribution.max(1), right), 4),
        "known": round(float((known > 0.5).mean()), 4),
    }


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Mean difference between confidence and share of right answers over ten bins, weighted by their size."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    inside = [place == index for index in range(_BINS)]
    gaps = [abs(confidence[each].mean() - right[each].mean()) * each.mean() for each in inside if each.any()]
    return float(sum(gaps))


def table(rows: list[Row], methods: Iterable[str] = METHODS) -> list[str]:
    """A markdown table: mean over seeds (spread: standard deviation) of the four scores."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines = ["| building | method | runs | ARI | NMI | edit | accuracy |", "|---|---|---|---|---|---|---|"]
    for case in cases:
        for method in methods:
            here = [row for row in rows if (row["case"], row["method"]) == (case, method) and "ari" in row]
            if here:
                cells = [_mean([row[score] for row in here]) for score in SCORES]
                lines.append(f"| {case} | {method} | {len(here)} | {' | '.join(cells)} |")
    return lines


def serving_table(rows: list[Row]) -> list[str]:
    """A markdown table of what became of new scans."""
    lines = [
        "| building | runs | accuracy, fitted scans | accuracy, new scans | calibration error | known |",
        "|---|---|---|---|---|---|",
    ]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    for case in cases:
        here = [row for row in rows if (row["case"], row["method"]) == (case, SERVING)]
        if here:
            names = ("accuracy", "accuracy_new", "calibration_error", "known")
            cells = [_mean([row[name] for row in here]) for name in names]
            lines.append(f"| {case} | {len(here)} | {' | '.join(cells)} |")
    return lines


def _fit(building: SurveyedBuilding, recipe: Recipe, seed: int) -> FittedBuilding:
    options = FitOptions(names=building.floors, seed=seed)
    return fit_building(building.scans, building.label(seed), options, recipe=recipe)


def _placed(
    building: SurveyedBuilding, method: str, seed: int
) -> tuple[NDArray[np.integer] | None, NDArray[np.int32]]:
    """The floor a baseline puts each usable scan on, and the true one."""
    graph = build_graph(building.scans, GraphRule())
    truth = building.floor[graph.scan_rows]
    floors = len(building.floors)
    if method == CEILING:
        walk = None if building.walk is None else building.walk[graph.scan_rows]
        return ceiling(graph, truth, walk, seed), truth
    cluster = BASELINES[method](graph, floors, seed)
    if cluster is None:
        return None, truth
    row = building.scans.ids.index(building.label(seed).scan)
    labelled = int(cluster[np.searchsorted(graph.scan_rows, row)])
    cost = path_costs(adapted_jaccard(heard_counts(graph, cluster, floors)))
    place = np.empty(floors, np.int64)
    place[list(order_clusters(cost, labelled, 1).clusters)] = np.arange(floors)
    return place[cluster], truth


def _scores(found: FloorScores) -> Row:
    return {score: round(float(getattr(found, score)), 4) for score in SCORES}


def _mean(values: list[float]) -> str:
    spread = f" ({np.std(values):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"
