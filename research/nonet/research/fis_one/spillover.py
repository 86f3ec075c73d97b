"""How alike two clusters are, by the transmitters heard in both: signals spill over to the next floor (paper,
section 6)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from nonet.research.fis_one.graph import SignalGraph

SIMILARITIES = ("adapted", "plain", "shares")


def heard_counts(graph: SignalGraph, cluster: NDArray[np.integer], clusters: int) -> NDArray[np.float64]:
    """n_i(m): in how many scans of cluster i transmitter m is heard (clusters, M). Scans of cluster -1 do not
    count."""
    edges = graph.edges
    scan = np.repeat(np.arange(graph.scans), graph.degree[: graph.scans])
    row, column = cluster[scan], graph.neighbour[:edges] - graph.scans
    kept = row >= 0
    shape = (clusters, graph.transmitters)
    return sparse.coo_matrix((np.ones(int(kept.sum())), (row[kept], column[kept])), shape=shape).toarray()


def adapted_jaccard(counts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Adapted Jaccard similarity of all pairs of rows (K, K), in [0, 1], 1 on the diagonal.

    A transmitter heard in only one of two clusters counts against the pair as if the other had heard it an
    average number of times. Two rows without any count have similarity 0, and 1 with themselves.
    """
    values = counts.astype(np.float64)
    heard = values > 0
    share = values @ values.T
    mean = values.sum(1) / np.maximum(heard.sum(1), 1)
    only = (~heard).astype(np.float64) @ values.T  # [i, j]: readings of j on transmitters that i never hears
    differ = mean[:, None] * only
    total = share + differ + differ.T
    similarity = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    np.fill_diagonal(similarity, 1.0)
    return similarity


def plain_jaccard(counts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Transmitters heard in both over transmitters heard in either, for all pairs of rows (K, K)."""
    heard = (counts > 0).astype(np.float64)
    both = heard @ heard.T
    either = heard.sum(1)[:, None] + heard.sum(1)[None, :] - both
    similarity = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    np.fill_diagonal(similarity, 1.0)
    return similarity


def similarity_of(counts: NDArray[np.floating], sizes: NDArray[np.integer], kind: str) -> NDArray[np.float64]:
    """One of SIMILARITIES; "shares" is the adapted Jaccard of counts divided by the clusters' sizes (our
    variant: large clusters weigh no more than small ones)."""
    if kind == "plain":
        return plain_jaccard(counts)
    if kind == "shares":
        return adapted_jaccard(counts / np.maximum(sizes, 1)[:, None])
    return adapted_jaccard(counts)
