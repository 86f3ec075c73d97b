"""Fitting a building: from scans with one floor label to the floors of all, and an identifier of new ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nonet.research.fis_one.building import (
    FEWEST_FLOORS,
    FitOptions,
    FitProgress,
    FittedBuilding,
    FloorLabel,
)
from nonet.research.fis_one.checkpoint import FitCheckpoint, identity_of
from nonet.research.fis_one.clustering import separation
from nonet.research.fis_one.consensus import cluster_scans
from nonet.research.fis_one.description import Findings, describe
from nonet.research.fis_one.floor_count import estimate_floors
from nonet.research.fis_one.graph import SignalGraph, build_graph
from nonet.research.fis_one.identifier_fit import fit_identifier
from nonet.research.fis_one.indexing import order_clusters, path_costs
from nonet.research.fis_one.network import RfGnn, initial_states
from nonet.research.fis_one.recipes import RECIPES, Recipe
from nonet.research.fis_one.spillover import heard_counts, similarity_of
from nonet.research.fis_one.training import Trainer, embed, unit_rows
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.scans import Scans

__all__ = ["FitOptions", "FitProgress", "FittedBuilding", "FloorLabel", "fit_building"]

Report = Callable[[FitProgress], None]

_REPORT_EVERY = 0.5  # seconds
_SAVE_EVERY = 10.0  # seconds of training between checkpoints
_TRAINED, _EMBEDDED, _COUNTED, _CLUSTERED = 0.75, 0.77, 0.85, 0.95  # fractions at which the phases end


def fit_building(
    scans: Scans,
    label: FloorLabel,
    options: FitOptions | None = None,
    *,
    report: Report | None = None,
    checkpoint: Path | None = None,
    recipe: Recipe | None = None,
) -> FittedBuilding:
    """Find the floor of each scan from the scans and one label.

    Args:
        scans: of one building.
        label: the one scan whose floor is known.
        options: number and names of the floors, preset, seed, threads.
        report: told how far the fit is, about every half second (a large building's clustering takes a few
            seconds in one piece); what it raises ends the fit.
        checkpoint: file that an interrupted fit is kept in and resumed from; the caller deletes it. It is
            ignored if it belongs to other scans, another label or other options.
        recipe: settings other than those of the preset, for studies.

    With the same arguments the result is the same, resumed or not, on one machine.

    Raises InvalidArgument if the label names no scan, or one without a usable reading, if there are fewer
    scans than floors, or if no scan has a usable reading.
    """
    asked = options or FitOptions()
    settings = recipe or RECIPES[asked.preset]
    with threadpool_limits(asked.threads):
        return _Fit(scans, label, asked, settings, report, checkpoint).run()


class _Fit:
    """One fit: its input, its graph and the parts in the order in which they run."""

    def __init__(
        self,
        scans: Scans,
        label: FloorLabel,
        options: FitOptions,
        recipe: Recipe,
        report: Report | None,
        checkpoint: Path | None,
    ) -> None:
        self.scans, self.label, self.options, self.recipe = scans, label, options, recipe
        self._report = _Reporter(report)
        self._report(0.0, "building the graph of scans and transmitters")
        self.graph = build_graph(scans, recipe.rule)
        self.labelled = _labelled_node(scans, self.graph, label)
        count = options.count
        if count is not None:
            options.position_of(label, count)  # a label that cannot be is refused before the work
            if self.graph.scans < count:
                raise InvalidArgument(
                    f"{self.graph.scans} usable scans cannot show {count} floors", param="scans"
                )
        identity = identity_of(scans, recipe, options.seed)
        self._checkpoint = FitCheckpoint(checkpoint, identity)

    def run(self) -> FittedBuilding:
        networks, losses = self._train()
        self._report(_TRAINED, "embedding all scans")
        initial = [self._initial(index) for index in range(len(networks))]
        states = [
            embed(network, first, self.graph, self.recipe.attention)
            for network, first in zip(networks, initial, strict=True)
        ]
        embeddings = [unit_rows(outer[: self.graph.scans]) for _, outer in states]
        points = np.concatenate(embeddings, axis=1) / np.sqrt(len(embeddings), dtype=np.float32)
        generator = np.random.default_rng([self.options.seed, 2])
        given = self.options.count
        self._report(_EMBEDDED, "estimating the number of floors")
        fewest = FEWEST_FLOORS if given else abs(self.label.position or FEWEST_FLOORS)
        count = estimate_floors(self.scans, self.graph.scan_rows, self.options.seed, fewest)
        floors = given or count.floors
        self.options.position_of(self.label, floors)
        self._report(_COUNTED, "grouping the scans into floors")
        clusters = cluster_scans(self.scans, self.graph, embeddings, floors, self.recipe, generator)
        cluster = clusters.label
        self._report(_CLUSTERED, "putting the floors in order")
        sizes = np.bincount(cluster, minlength=floors)
        counts = heard_counts(self.graph, cluster, floors)
        similarity = similarity_of(counts, sizes, self.recipe.similarity)
        cost = path_costs(similarity, self.recipe.cost)
        position = self.options.position_of(self.label, floors)
        order = order_clusters(cost, int(cluster[self.labelled]), position)
        place = np.empty(floors, np.int32)
        place[list(order.clusters)] = np.arange(floors)
        floor = place[cluster]
        self._report(0.96, "learning to identify new scans")
        arrays = fit_identifier(
            self.graph,
            networks[0],
            initial[0],
            states[0][0],
            floor,
            floors,
            self.recipe,
            self.options.seed,
            clusters.trust,
        )
        names = self.options.floor_names(self.label, floors)
        placed = np.full(len(self.scans), -1, np.int32)
        placed[self.graph.scan_rows] = floor
        findings = Findings(
            names=names,
            sizes=sizes[list(order.clusters)],
            similarity=similarity[np.ix_(order.clusters, order.clusters)],
            order=order,
            count=count,
            given=given is not None,
            clusters=clusters,
            losses=losses,
            separation=separation(points, cluster, floors),
            heard_with_label=_shared_with_label(self.graph, counts, cluster, self.labelled),
        )
        facts = describe(self.scans, self.graph, self.label, self.options, self.recipe, findings)
        self._report(1.0, "done")
        return FittedBuilding(
            scans=self.scans.ids,
            transmitters=tuple(self.scans.transmitters[column] for column in self.graph.columns),
            floors=names,
            floor_of_scan=placed,
            network=arrays,
            picture=_plane(points, len(self.scans), self.graph.scan_rows),
            facts=facts,
            label=self.label,
            options=self.options,
        )

    def _train(self) -> tuple[list[RfGnn], list[float]]:
        """All networks, trained or taken from the checkpoint, and their last losses."""
        recipe = self.recipe
        rows = self._trained_rows()
        part = self.graph if rows is None else build_graph(self.scans.take(rows), recipe.rule)
        found = self._checkpoint.load()
        arrays, facts = found or ({}, {"losses": []})
        losses: list[float] = list(facts["losses"])
        done = {name: value for name, value in arrays.items() if name.startswith("done.")}
        networks = [_rebuilt(done, index) for index in range(len(losses))]
        for index in range(len(losses), recipe.networks):
            initial = self._initial(index)
            if rows is not None:
                initial = initial[self._nodes_of(part, rows)]
            trainer = Trainer(part, initial, recipe, _seed(self.options.seed, index))
            if "step" in facts:
                trainer.restore(arrays, facts)
                facts = {}
            trainer.run(self._observer(index, done, losses))
            networks.append(trainer.network)
            losses.append(trainer.loss)
            done |= {f"done.{index}.{name}": value for name, value in trainer.network.parameters.items()}
            self._checkpoint.save(done, {"losses": losses})
        return networks, losses

    def _observer(
        self, index: int, done: dict[str, NDArray[Any]], losses: list[float]
    ) -> Callable[[Trainer], None]:
        saved = time.monotonic()

        def observe(trainer: Trainer) -> None:
            nonlocal saved
            part = (index + trainer.step / self.recipe.steps) / self.recipe.networks
            self._report(
                0.01 + (_TRAINED - 0.01) * part, "learning how scans and transmitters belong together"
            )
            if time.monotonic() - saved >= _SAVE_EVERY:
                arrays, facts = trainer.state()
                self._checkpoint.save(done | arrays, {"losses": losses, **facts})
                saved = time.monotonic()

        return observe

    def _trained_rows(self) -> NDArray[np.int64] | None:
        """The scans to train on, if not all of them."""
        if self.graph.scans <= self.recipe.most_trained:
            return None
        generator = np.random.default_rng([self.options.seed, 3])
        chosen = generator.choice(self.graph.scans, self.recipe.most_trained, replace=False)
        return self.graph.scan_rows[np.sort(chosen)]

    def _initial(self, index: int) -> NDArray[np.float32]:
        """The fixed states of all nodes for network ``index`` (n, D)."""
        generator = np.random.default_rng([_seed(self.options.seed, index), 4])
        return initial_states(self.graph.nodes, self.recipe.dimension, generator)

    def _nodes_of(self, part: SignalGraph, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which nodes of the whole graph the nodes of a part are."""
        scans = np.searchsorted(self.graph.scan_rows, rows[part.scan_rows])
        columns = np.searchsorted(self.graph.columns, part.columns) + self.graph.scans
        return np.concatenate([scans, columns])


class _Reporter:
    """Hands progress on, at most every half second within a phase."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._last = float("-inf")
        self._phase = ""

    def __call__(self, fraction: float, phase: str) -> None:
        now = time.monotonic()
        if self._report is not None and (phase != self._phase or now - self._last >= _REPORT_EVERY):
            self._last, self._phase = now, phase
            self._report(FitProgress(fraction, phase))


def _seed(seed: int, index: int) -> int:
    """The seed of network ``index`` of a fit."""
    return seed if index == 0 else (seed + 1) * 1000 + index


def _rebuilt(done: dict[str, NDArray[Any]], index: int) -> RfGnn:
    prefix = f"done.{index}."
    return RfGnn({name[len(prefix) :]: value for name, value in done.items() if name.startswith(prefix)})


def _labelled_node(scans: Scans, graph: SignalGraph, label: FloorLabel) -> int:
    if label.scan not in scans.ids:
        raise InvalidArgument("the labelled scan is not among the scans", param="labelled")
    row = scans.ids.index(label.scan)
    node = int(np.searchsorted(graph.scan_rows, row))
    if node == graph.scans or graph.scan_rows[node] != row:
        raise InvalidArgument("the labelled scan has no usable reading; label another one", param="labelled")
    return node


def _shared_with_label(
    graph: SignalGraph, counts: NDArray[np.float64], cluster: NDArray[np.integer], labelled: int
) -> float:
    """Share of the transmitters of the label's cluster that the labelled scan hears too (section 13)."""
    heard = counts[cluster[labelled]] > 0
    start, stop = graph.offsets[labelled], graph.offsets[labelled + 1]
    own = graph.neighbour[start:stop] - graph.scans
    return float(heard[own].sum() / max(int(heard.sum()), 1))


def _plane(points: NDArray[np.floating], count: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scans on the two axes of largest variance (count, 2); scans that are no points lie at 0."""
    centred: Any = points - points.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, -2:]
    plane = np.zeros((count, 2), np.float32)
    plane[rows] = centred @ axes[:, ::-1]
    return plane
