"""Scan features without training: the graph's leading singular vectors, and clusters of scans on them.

Spectral co-clustering (Dhillon 2001): with the edge weights W and the weighted degrees D, the singular
vectors of D_u^-1/2 W D_v^-1/2 are the patterns that survive steps from scan to transmitter and back. Scaling
them by a power of their singular values is as many such steps: an RF-GNN that only aggregates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from sklearn.cluster import KMeans, SpectralCoclustering
from sklearn.utils.extmath import randomized_svd

from nonet.research.fis_one.graph import GraphRule
from nonet.research.fis_one.sampling import MOST_DECOMPOSED, drawn_evenly
from nonet.research.fis_one.training import unit_rows

RULES = (GraphRule(), GraphRule(weight="sharp"), GraphRule(weight="sharp", sharpness=20.0))
"""Weightings of the graph whose features are looked at beside each other."""

_DEGREE_SHARE = 0.1  # of the mean degree, added to a transmitter's: rare ones do not dominate
_GRAPH_SHARE = 0.02  # the same for the graph of neighbours: islands do not take whole eigenvectors
_SPARE = 2
_TINY = 1e-12


def propagated_features(
    weights: sparse.csr_matrix, directions: int, steps: int, seed: int
) -> NDArray[np.float32]:
    """Unit rows (N, directions or fewer) for scans given as rows of edge weights (N, M)."""
    scan_degree = np.asarray(weights.sum(1)).ravel()
    heard = np.asarray(weights.sum(0)).ravel()
    balanced = (
        sparse.diags(scan_degree**-0.5)
        @ weights.astype(np.float64)
        @ sparse.diags((heard + _DEGREE_SHARE * heard.mean()) ** -0.5)
    ).tocsr()
    part = balanced[drawn_evenly(balanced.shape[0], MOST_DECOMPOSED, seed)]
    wanted = min(directions + 1, min(part.shape))
    left, values, right = randomized_svd(part, wanted, n_iter=5, random_state=seed)
    if len(left) < len(scan_degree):
        left = balanced @ (right.T / np.maximum(values, _TINY))
    features = (left * scan_degree[:, None] ** -0.5)[:, 1:] * values[1:] ** steps
    return (
        unit_rows(features.astype(np.float32)) if wanted > 1 else np.ones((len(scan_degree), 1), np.float32)
    )


def neighbour_clusters(
    features: NDArray[np.floating], clusters: int, neighbours: int, seed: int
) -> NDArray[np.int32] | None:
    """Spectral clusters (Ng, Jordan and Weiss 2002) of the graph in which each of N unit rows is joined to
    its ``neighbours`` most similar ones; None if its eigenvectors do not converge."""
    vectors = neighbour_vectors(features, clusters, neighbours)
    return None if vectors is None else k_means(unit_rows(vectors), clusters, seed)


def neighbour_vectors(features: NDArray[np.floating], wanted: int, neighbours: int) -> NDArray[Any] | None:
    """Leading eigenvectors (N, wanted) of that graph, the first first; None if they do not converge."""
    count = len(features)
    near = min(neighbours, count - 1)
    similar = features @ features.T
    np.fill_diagonal(similar, -np.inf)
    columns = np.argpartition(-similar, near - 1, axis=1)[:, :near].ravel()
    rows = np.repeat(np.arange(count), near)
    one_way = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    joined = (one_way + one_way.T) / 2
    degree = np.asarray(joined.sum(1)).ravel()
    scale = sparse.diags((degree + _GRAPH_SHARE * degree.mean()) ** -0.5)
    vectors = min(wanted + _SPARE, count - 2)
    try:
        _, found = eigsh(
            scale @ joined @ scale,
            k=vectors,
            which="LA",
            v0=np.ones(count),
            tol=1e-5,
            ncv=min(count - 1, max(80, 3 * vectors)),
            maxiter=2000,
        )
    except ArpackNoConvergence:
        return None
    leading: NDArray[Any] = found[:, ::-1][:, :wanted]
    return leading


def k_means(points: NDArray[np.floating], clusters: int, seed: int) -> NDArray[np.int32]:
    """k-means with three starts."""
    model = KMeans(clusters, n_init=3, random_state=seed).fit(points)
    return model.labels_.astype(np.int32)


def co_clusters(weights: sparse.csr_matrix, clusters: int, seed: int) -> NDArray[np.int32] | None:
    """Spectral co-clustering (Dhillon 2001) of scans (N, M) with the transmitters they hear: the graph's
    normalised cut into ``clusters``, some of which may have no scan. None if there are too few of either."""
    if min(weights.shape) < clusters + _SPARE:
        return None
    model = SpectralCoclustering(clusters, random_state=seed).fit(weights)
    return model.row_labels_.astype(np.int32)
