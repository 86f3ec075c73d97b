"""From scans to clusters, one for each floor.

"ward" is the paper's way: Ward on the embeddings of the network. "consensus" makes many partitions of a
sample of the scans (Ward, k-means and spectral clusters, on the embeddings of the network and on propagated
features of several sharpness, and of what is heard at all; and spectral co-clusters), keeps the three tenths
of them that look most like floors, and takes the one that the others of those agree with best.

What floors look like, without labels. A slab costs a signal 15 dB and more, so a transmitter is loud on one
floor and clearly weaker on all others; where a partition cuts through a floor instead, transmitters near the
cut are as loud on one side as on the other. And what is left of a signal spills over to the next floor all
over the building, while two wings hear little of each other. So partitions are ranked by the mean difference
between a transmitter's loudness in its loudest and its second cluster, counted up to 15 dB, less the cost of
joining all clusters by their spillover.

How well those that look most like floors agree with each other says how far to rely on the one taken: where
walls, halls and wings look like floors, each draws its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

from nonet.research.fis_one.clustering import ward
from nonet.research.fis_one.graph import SignalGraph, build_graph
from nonet.research.fis_one.identifier_fit import scan_weights
from nonet.research.fis_one.indexing import path_costs
from nonet.research.fis_one.loudness import SLAB, audible_readings, loudness
from nonet.research.fis_one.metrics import mean_agreement
from nonet.research.fis_one.propagation import (
    RULES,
    co_clusters,
    k_means,
    neighbour_clusters,
    propagated_features,
)
from nonet.research.fis_one.recipes import Recipe
from nonet.research.fis_one.spillover import adapted_jaccard
from nonet.runtime.scans import Scans

_SAMPLE = 1500
_KEPT = 0.3  # of the partitions, the best ranked
_SPILLOVER_WEIGHT = 1.6  # dB of loudness gap that one unit of a step's cost outweighs
_NEIGHBOURS = (20, 30, 50, 80, 120, 180)
_STEPS = (1, 3)
_DIRECTIONS = 32
_SMALLEST = 0.15  # of the mean cluster size: a partition with a smaller cluster does not count
_BLOCK = 4096
_VOTE_OF = 5  # sampled scans that say where another scan belongs

# Logistic regression of the share of scans on their right floor, beyond chance, on the agreement: seven
# surveyed buildings and 18 made-up ones (bench/learn_trust.py).
_EVEN_AGREEMENT, _STEEPNESS = 0.803, 22.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Which cluster each scan is in, and how far to rely on it.

    Attributes:
        label: (N), 0 to K - 1, none of them empty.
        agreement: mean adjusted Rand index of the partition taken with the others that looked most like
            floors; None where there was only one.
    """

    label: NDArray[np.int32]
    agreement: float | None = None

    @property
    def trust(self) -> float:
        """Share of the scans that are expected on their right floor beyond chance, 0 to 1; 1 if unknown."""
        if self.agreement is None:
            return 1.0
        return float(1 / (1 + np.exp(-_STEEPNESS * (self.agreement - _EVEN_AGREEMENT))))


def cluster_scans(
    scans: Scans,
    graph: SignalGraph,
    embeddings: list[NDArray[np.float32]],
    floors: int,
    recipe: Recipe,
    generator: np.random.Generator,
) -> Clusters:
    """The cluster of each scan, 0 to ``floors`` - 1.

    Args:
        scans: the readings. graph: its N scans are clustered. embeddings: (N, D) unit rows of each network.
        recipe: says how.
    """
    if recipe.clustering == "ward":
        return Clusters(ward(embeddings[0], floors, generator))
    rows = without_excess(scans, graph.scan_rows)
    if len(rows) > _SAMPLE:
        rows = np.sort(generator.choice(rows, _SAMPLE, replace=False))
    if len(rows) <= floors * 2:
        return Clusters(ward(embeddings[0], floors, generator))
    seed = int(generator.integers(1 << 31))
    weights = [scan_weights(build_graph(scans.take(graph.scan_rows), rule)) for rule in RULES]
    weights.append(weights[0].sign())
    features = [
        propagated_features(each, directions, steps, seed)
        for each in weights
        for directions in sorted({2 * floors, _DIRECTIONS})
        for steps in _STEPS
    ]
    loud = audible_readings(scans.take(graph.scan_rows[rows]))
    heard = weights[0][rows] > 0
    joint = co_clusters(_heard_columns(weights[0][rows]), floors, seed)
    candidates = itertools.chain(
        [] if joint is None else [joint],
        *(partitions(each[rows], floors, generator, seed) for each in (*embeddings, *features)),
    )
    found = [
        (loudness_gap(loud, label, floors) - _SPILLOVER_WEIGHT * spillover_cost(heard, label, floors), label)
        for label in candidates
        if np.bincount(label, minlength=floors).min() >= _SMALLEST * len(rows) / floors
    ]
    if not found:
        return Clusters(ward(embeddings[0], floors, generator))
    found.sort(key=lambda one: -one[0])
    best = [label for _, label in found[: max(round(_KEPT * len(found)), 1)]]
    label, agreement = most_agreed(best, floors)
    return Clusters(spread(features[0], rows, label, floors), agreement)


def _heard_columns(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """The rows without the transmitters that none of them hears."""
    return weights[:, np.unique(weights.indices)]


def without_excess(scans: Scans, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the scans at ``rows`` (N) to look at: all of them, but of equal scans no more than a scan has
    copies in the median. Phones give cached results again, and a place where many did would outweigh others.
    """
    seen: dict[bytes, int] = {}
    copy = np.empty(len(rows), np.int64)
    for index, row in enumerate(rows):
        part = slice(scans.offsets[row], scans.offsets[row + 1])
        content = scans.transmitter[part].tobytes() + scans.rssi[part].tobytes()
        copy[index] = seen[content] = seen.get(content, -1) + 1
    most = max(int(np.median(list(seen.values()))) + 1, 1)
    return np.flatnonzero(copy < most)


def partitions(
    points: NDArray[np.floating], clusters: int, generator: np.random.Generator, seed: int
) -> Iterator[NDArray[np.int32]]:
    """Partitions of points (n, D) into ``clusters``: Ward, k-means, and spectral ones at several scales."""
    yield ward(points, clusters, generator)
    yield k_means(points, clusters, seed)
    for neighbours in _NEIGHBOURS:
        label = neighbour_clusters(points, clusters, neighbours, seed)
        if label is not None:
            yield label


def loudness_gap(readings: NDArray[np.float32], label: NDArray[np.integer], clusters: int) -> float:
    """Mean over transmitters of the difference in dB, up to 15, between their loudness in the loudest cluster
    and in the second. ``readings`` (n, m), ``label`` (n) with no cluster empty."""
    table = np.stack([loudness(readings[label == cluster]) for cluster in range(clusters)])
    ranked = np.sort(table, axis=0)
    return float(np.minimum(ranked[-1] - ranked[-2], SLAB).mean())


def spillover_cost(heard: sparse.csr_matrix, label: NDArray[np.integer], clusters: int) -> float:
    """Mean cost of a step between clusters that are joined at the least cost: 1 / adapted Jaccard similarity
    over the edges of a minimum spanning tree, which a path through floors is at best. 0 for one cluster.

    Args:
        heard: (n, M), whether a scan hears a transmitter. label: (n) with no cluster empty.
    """
    member = sparse.csr_matrix((np.ones(len(label)), (label, np.arange(len(label)))), (clusters, len(label)))
    cost = path_costs(adapted_jaccard((member @ heard.astype(np.float64)).toarray()))
    np.fill_diagonal(cost, 0.0)
    return float(minimum_spanning_tree(cost).sum()) / max(clusters - 1, 1)


def most_agreed(labels: list[NDArray[np.int32]], clusters: int) -> tuple[NDArray[np.int32], float | None]:
    """The partition with the highest mean adjusted Rand index with the others, the first of equals, and that
    index; None for a single one."""
    agreement = mean_agreement(np.stack(labels), clusters)
    best = int(agreement.argmax())
    return labels[best], float(agreement[best]) if len(labels) > 1 else None


def spread(
    features: NDArray[np.float32], rows: NDArray[np.int64], label: NDArray[np.int32], clusters: int
) -> NDArray[np.int32]:
    """Labels for all N unit rows of ``features`` from those of the sampled ``rows``: the five most similar
    sampled scans vote, weighted by similarity; sampled ones keep theirs."""
    known = features[rows]
    near = min(_VOTE_OF, len(rows))
    placed = np.empty(len(features), np.int32)
    for start in range(0, len(features), _BLOCK):
        similar = features[start : start + _BLOCK] @ known.T
        chosen = np.argpartition(-similar, near - 1, axis=1)[:, :near]
        votes = np.zeros((len(similar), clusters))
        weight = np.maximum(np.take_along_axis(similar, chosen, axis=1), 0) + 1e-6
        np.add.at(votes, (np.arange(len(similar))[:, None], label[chosen]), weight)
        placed[start : start + _BLOCK] = votes.argmax(1)
    placed[rows] = label
    return placed
