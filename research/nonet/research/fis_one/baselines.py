"""What a building's floors look like to other methods with the same single label, and to one with all labels.

Each gives clusters of the graph's scans; the clusters are then put in order as FIS-ONE does it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier

from nonet.research.fis_one.clustering import ward
from nonet.research.fis_one.consensus import spread
from nonet.research.fis_one.graph import SignalGraph
from nonet.research.fis_one.identifier_fit import scan_weights
from nonet.research.fis_one.propagation import co_clusters, k_means, neighbour_clusters
from nonet.research.fis_one.spillover import adapted_jaccard
from nonet.research.fis_one.training import unit_rows

Clusters = NDArray[np.int32]

_SAMPLE = 3000
_NEIGHBOURS = 10
_MDS_DIMENSIONS = 32
_SVD_DIMENSIONS = 64
_LOUVAIN_EDGES = 200_000
_FOLDS = 5
_NEAREST = 5


def raw_ward(graph: SignalGraph, floors: int, seed: int) -> Clusters:
    """Ward on rows of RSS + 120 (0 = missing); of more than 3,000 scans, on 3,000 of them."""
    return ward(scan_weights(graph).toarray(), floors, np.random.default_rng(seed), _SAMPLE)


def raw_k_means(graph: SignalGraph, floors: int, seed: int) -> Clusters:
    """k-means on rows of RSS + 120."""
    return k_means(scan_weights(graph).toarray(), floors, seed)


def raw_spectral(graph: SignalGraph, floors: int, seed: int) -> Clusters:
    """Spectral clustering of the ten-neighbour graph by cosine of RSS + 120, on up to 3,000 scans."""
    rows = unit_rows(scan_weights(graph).toarray())
    chosen = _sample(graph, seed)
    label = neighbour_clusters(rows[chosen], floors, _NEIGHBOURS, seed)
    if label is None:
        return raw_k_means(graph, floors, seed)
    return spread(rows, chosen, label, floors)


def mds_ward(graph: SignalGraph, floors: int, seed: int) -> Clusters:
    """Classical MDS to 32 dimensions of 1 - cosine, with -120 dBm for the missing, then Ward; on up to 3,000
    scans, which say where the others belong."""
    rows = unit_rows((scan_weights(graph).toarray() - 120).astype(np.float32))
    chosen = _sample(graph, seed)
    squared = (1 - rows[chosen] @ rows[chosen].T).astype(np.float64) ** 2
    centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    wanted = min(_MDS_DIMENSIONS, len(chosen) - 1)
    values, vectors = sparse.linalg.eigsh(-centred / 2, k=wanted, which="LA", v0=np.ones(len(chosen)))
    points = vectors * np.sqrt(np.maximum(values, 0))
    return spread(rows, chosen, ward(points, floors, np.random.default_rng(seed)), floors)


def svd_ward(graph: SignalGraph, floors: int, seed: int) -> Clusters:
    """TruncatedSVD to 64 dimensions of RSS + 120, then Ward (on up to 3,000 scans)."""
    weights = scan_weights(graph)
    wanted = min(_SVD_DIMENSIONS, weights.shape[1] - 1)
    points = TruncatedSVD(wanted, random_state=seed).fit_transform(weights)
    return ward(points, floors, np.random.default_rng(seed), _SAMPLE)


def co_clustering(graph: SignalGraph, floors: int, seed: int) -> Clusters | None:
    """Spectral co-clustering of the bipartite graph (Dhillon 2001), which cuts it as METIS would, by its
    normalised cut. None for a handful of scans or transmitters."""
    found = co_clusters(scan_weights(graph), floors, seed)
    return None if found is None else _filled(found, floors)


def louvain(graph: SignalGraph, floors: int, seed: int) -> Clusters | None:
    """Louvain communities of the bipartite graph, joined or split to the number of floors: the two most alike
    by adapted Jaccard are joined, or the largest is cut by Ward. None above 200,000 edges, which take
    networkx many minutes."""
    import networkx

    if graph.edges > _LOUVAIN_EDGES:
        return None
    weights = scan_weights(graph).tocoo()
    network = networkx.Graph()
    network.add_nodes_from(range(graph.nodes))
    ends = zip(weights.row.tolist(), (weights.col + graph.scans).tolist(), weights.data.tolist(), strict=True)
    network.add_weighted_edges_from(ends)
    found = networkx.community.louvain_communities(network, weight="weight", seed=seed)
    label = np.full(graph.nodes, 0, np.int32)
    for index, members in enumerate(found):
        label[list(members)] = index
    return _to_count(graph, np.unique(label[: graph.scans], return_inverse=True)[1], floors, seed)


BASELINES: dict[str, Callable[[SignalGraph, int, int], Clusters | None]] = {
    "k-means on RSS": raw_k_means,
    "spectral on RSS": raw_spectral,
    "Ward on RSS": raw_ward,
    "MDS-32 + Ward": mds_ward,
    "SVD-64 + Ward": svd_ward,
    "co-clustering": co_clustering,
    "Louvain": louvain,
}


def ceiling(
    graph: SignalGraph, floor: NDArray[np.integer], walk: NDArray[np.integer] | None, seed: int
) -> NDArray[np.int64]:
    """The floor of each scan by its five nearest neighbours with ALL labels, by cosine of RSS + 120: five
    folds, whole walks where they are known."""
    rows = unit_rows(scan_weights(graph).toarray())
    groups = walk if walk is not None else np.random.default_rng(seed).permutation(graph.scans)
    found = np.empty(graph.scans, np.int64)
    for known, asked in GroupKFold(_FOLDS).split(rows, floor, groups):
        model = KNeighborsClassifier(_NEAREST, metric="cosine", algorithm="brute")
        found[asked] = model.fit(rows[known], floor[known]).predict(rows[asked])
    return found


def _sample(graph: SignalGraph, seed: int) -> NDArray[np.int64]:
    if graph.scans <= _SAMPLE:
        return np.arange(graph.scans)
    return np.sort(np.random.default_rng(seed).choice(graph.scans, _SAMPLE, replace=False))


def _filled(label: Clusters, floors: int) -> Clusters:
    """Labels in which every cluster has a scan: an empty one takes a scan of the largest."""
    for cluster in range(floors):
        if not (label == cluster).any():
            largest = np.bincount(label, minlength=floors).argmax()
            label[np.flatnonzero(label == largest)[0]] = cluster
    return label


def _to_count(graph: SignalGraph, found: NDArray[np.integer], floors: int, seed: int) -> Clusters:
    label: Clusters = np.asarray(found, np.int32)
    weights = scan_weights(graph)
    while (count := int(label.max()) + 1) != floors:
        if count > floors:
            member = sparse.csr_matrix((np.ones(len(label)), (label, np.arange(len(label)))))
            similarity = adapted_jaccard((member @ (weights > 0).astype(float)).toarray())
            np.fill_diagonal(similarity, -1)
            keep, gone = sorted(np.unravel_index(similarity.argmax(), similarity.shape))
            label[label == gone] = keep
            label[label > gone] -= 1
        else:
            rows = np.flatnonzero(label == np.bincount(label).argmax())
            halves = ward(weights[rows].toarray(), 2, np.random.default_rng(seed), _SAMPLE)
            label[rows[halves == 1]] = count
    return label
