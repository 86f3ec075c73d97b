"""What ``building.json`` says of a fit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonet.research.fis_one.building import FORMAT, FitOptions, FloorLabel
from nonet.research.fis_one.clustering import MOST_WARD
from nonet.research.fis_one.consensus import Clusters
from nonet.research.fis_one.floor_count import FloorCount
from nonet.research.fis_one.graph import SignalGraph
from nonet.research.fis_one.indexing import FloorOrder
from nonet.research.fis_one.recipes import Recipe
from nonet.runtime.scans import Scans

_LITTLE_SHARED = 0.05
_FULL_TRUST = 0.9
_DOUBTS = ((0.25, "little", "are likely wrong"), (0.6, "little", "may be wrong for many scans"))
_SLIGHT = ("not throughout", "may be wrong in places")
_FEWEST_SCANS = 4
LOSS_OF_CHANCE = float(np.log(2))
"""Mean loss of a network that cannot tell neighbours from nodes drawn at random."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What a fit found out.

    Attributes:
        names: of the floors, bottom first (K). sizes: scans per floor (K).
        similarity: of the floors (K, K), in floor order. order: of the clusters.
        count: the estimated number of floors and its reasons. given: whether the caller named a number.
        clusters: the scans' clusters, and how far to rely on them.
        losses: last loss of each network. separation: share of variance between floors.
        heard_with_label: share of the label's floor's transmitters that the labelled scan hears.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.integer]
    similarity: NDArray[np.floating]
    order: FloorOrder
    count: FloorCount
    given: bool
    clusters: Clusters
    losses: list[float]
    separation: float
    heard_with_label: float


def describe(
    scans: Scans,
    graph: SignalGraph,
    label: FloorLabel,
    options: FitOptions,
    recipe: Recipe,
    findings: Findings,
) -> dict[str, Any]:
    """The facts of a fit, JSON-able; docs/floors.md explains each."""
    order, agreement = findings.order, findings.clusters.agreement
    hypotheses = [list(findings.names)]
    if order.other is not None:
        hypotheses.append(list(findings.names[::-1]))
    return {
        "format": FORMAT,
        "floors": list(findings.names),
        "scans_per_floor": {
            name: int(size) for name, size in zip(findings.names, findings.sizes, strict=True)
        },
        "label": {"scan": label.scan, "floor": str(label.floor), "position": label.position},
        "options": dataclasses.asdict(options),
        "recipe": dataclasses.asdict(recipe),
        "input": {
            "scans": len(scans),
            "usable_scans": graph.scans,
            "transmitters": graph.transmitters,
            "readings": graph.edges,
        },
        "order": {
            "cost": round(order.cost, 6),
            "decided": order.other is None,
            "hypotheses": hypotheses,
        },
        "spillover": [[round(float(value), 4) for value in row] for row in findings.similarity],
        "floor_count": _floor_count(len(findings.names), findings.count, findings.given),
        "quality": {
            "loss": round(float(np.mean(findings.losses)), 4),
            "separation": round(findings.separation, 4),
            "agreement": None if agreement is None else round(agreement, 4),
            "trust": round(findings.clusters.trust, 4),
            "shared_with_label": round(findings.heard_with_label, 4),
        },
        "warnings": _warnings(graph, recipe, findings),
    }


def _floor_count(floors: int, count: FloorCount, given: bool) -> dict[str, Any]:
    """The number of floors, whether it was estimated, all that come into question and what was seen."""
    chance = dict(count.chances)
    seen = [
        {
            "floors": each.floors,
            "probability": round(chance.get(each.floors, 0.0), 4),
            "agreement": round(each.agreement, 4),
            "separation": round(each.separation, 2),
            "gulf": round(each.gulf, 4),
        }
        for each in count.evidence
    ]
    return {"estimated": not given, "floors": floors, "evidence": seen}


def doubt_of_floors(clusters: Clusters, floors: int) -> str | None:
    """How far the floors found are to be doubted, by ``trust``, in words and as a share of the scans; None
    where it is 0.9 or more."""
    trust = clusters.trust
    if clusters.agreement is None or trust >= _FULL_TRUST:
        return None
    graded = ((agree, wrong) for least, agree, wrong in _DOUBTS if trust < least)
    agree, wrong = next(graded, _SLIGHT)
    right = trust + (1 - trust) / floors
    return (
        f"different ways to group the scans agree {agree} ({clusters.agreement:.2f} of 1), as where halls, "
        f"long wings or an atrium weigh more than slabs: the floors found {wrong} (about {right:.0%} of the "
        "scans are expected on their right floor), and the confidence of answers is lowered; check them with "
        "more known scans"
    )


def _warnings(graph: SignalGraph, recipe: Recipe, findings: Findings) -> list[str]:
    """What a reader of the result should know, in plain words."""
    found = []
    floors = len(findings.names)
    of_count = findings.count.doubt(floors) if findings.given else findings.count.warning
    if of_count is not None:
        found.append(of_count)
    doubt = doubt_of_floors(findings.clusters, floors)
    if doubt is not None:
        found.append(doubt)
    if findings.sizes.min() < _FEWEST_SCANS:
        found.append(
            f"a floor has {findings.sizes.min()} of the scans; fewer than {_FEWEST_SCANS} say little: scan "
            "every floor in several places"
        )
    if findings.heard_with_label < _LITTLE_SHARED:
        found.append(
            f"the labelled scan hears {findings.heard_with_label:.0%} of the transmitters of its floor; if "
            "that floor is mixed, the order of all floors may be wrong: check it with a second known scan"
        )
    if findings.order.other is not None:
        found.append(
            "the label is on the middle floor, so up and down cannot be told apart: both orders are given"
        )
    if float(np.mean(findings.losses)) > LOSS_OF_CHANCE:
        found.append("the network did not learn more than chance from these scans")
    if graph.scans > recipe.most_trained:
        found.append(f"the network was trained on {recipe.most_trained} of {graph.scans} scans, drawn evenly")
    if graph.scans > MOST_WARD:
        found.append(
            f"{MOST_WARD} of {graph.scans} scans, drawn evenly, were clustered; the others joined the nearest"
        )
    if findings.sizes.min() < 0.01 * findings.sizes.sum():
        found.append("a floor has less than 1 % of the scans: it may not exist")
    return found
