"""Clusters of scan embeddings (paper, section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage

MOST_WARD = 10_000
"""Points that Ward clusters at once: it keeps all pairs of distances. Of more, as many are drawn evenly and
the others join the nearest centroid."""

_BLOCK = 4096


def ward(
    points: NDArray[np.floating], clusters: int, generator: np.random.Generator, most: int = MOST_WARD
) -> NDArray[np.int32]:
    """Ward's clusters (N) of points (N, D), numbered from 0."""
    count = len(points)
    if count <= clusters:
        return np.arange(count, dtype=np.int32)
    chosen = np.arange(count) if count <= most else np.sort(generator.choice(count, most, replace=False))
    tree = linkage(points[chosen].astype(np.float64), "ward")
    label = cut_tree(tree, n_clusters=clusters)[:, 0].astype(np.int32)
    if len(chosen) == count:
        return label
    return nearest_centroid(points, centroids(points[chosen], label, clusters))


def centroids(points: NDArray[np.floating], label: NDArray[np.integer], clusters: int) -> NDArray[np.float64]:
    """Mean of each cluster's points (clusters, D); zeros for an empty one."""
    sums = np.zeros((clusters, points.shape[1]))
    np.add.at(sums, label, points)
    return sums / np.maximum(np.bincount(label, minlength=clusters), 1)[:, None]


def nearest_centroid(points: NDArray[np.floating], centres: NDArray[np.floating]) -> NDArray[np.int32]:
    """Index (N) of the centre nearest to each point, by Euclidean distance."""
    norm = (centres**2).sum(1)
    blocks = (points[start : start + _BLOCK] for start in range(0, len(points), _BLOCK))
    found = [(norm - 2 * (block @ centres.T)).argmin(1) for block in blocks]
    return np.concatenate(found).astype(np.int32) if found else np.empty(0, np.int32)


def separation(points: NDArray[np.floating], label: NDArray[np.integer], clusters: int) -> float:
    """Share of the points' variance that lies between the clusters, 0 to 1."""
    centres = centroids(points, label, clusters)
    total = float(((points - points.mean(0)) ** 2).sum())
    within = float(((points - centres[label]) ** 2).sum())
    return 1 - within / total if total > 0 else 0.0
