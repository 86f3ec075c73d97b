"""What speaks for a number of floors: sixty ways to part the scans into so many, and how good they are.

Three figures tell a slab between two floors from a line drawn across one:

agreement    Different methods (Ward, k-means, spectral clusters) on different features find the same parts.
             Where there is no boundary each draws its own. Mean adjusted Rand index of all pairs, 0 to 1.
separation   Each transmitter is loud in one part and 15 dB weaker in the others. Those near an arbitrary line
             are as loud on either side. Mean difference of the loudest readings in dB, counted up to 15, of
             the two parts that are least apart; the median of the nine partitions that agree most with all.
gulf         No scan has its likes on the other side. Scans at an arbitrary line are as near to those beyond
             it as to their own. Cosine similarity to the third most alike scan of the own part, less that to
             the most alike of the others, that nine in ten scans of every part exceed; the best tenth of all
             partitions reaches it. One with a part smaller than 35 % of the mean does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage

from nonet.research.fis_one.graph import build_graph
from nonet.research.fis_one.identifier_fit import scan_weights
from nonet.research.fis_one.loudness import LOUDEST, SLAB, audible_readings, loudness
from nonet.research.fis_one.metrics import mean_agreement
from nonet.research.fis_one.propagation import RULES, k_means, neighbour_vectors, propagated_features
from nonet.research.fis_one.training import unit_rows
from nonet.runtime.scans import Scans

Labels = NDArray[np.int32]

_DIRECTIONS = (16, 32)
_STEPS = (1, 3)
_NEIGHBOURS = (20, 50, 120)
_HEARD_WELL = -75.0  # dBm; two parts are compared by transmitters at least so loud in one of them
_MOST_AGREEING = 9
_FEWEST_OF_PART = 4
_SMALLEST = 0.35
_NEAREST = 250
_OWN = 3
_SHARE = 0.9
_BEST = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """The three figures for one number of floors."""

    floors: int
    agreement: float
    separation: float
    gulf: float


def gather_evidence(
    scans: Scans, rows: NDArray[np.int64], counts: Sequence[int], seed: int
) -> list[Evidence]:
    """The evidence for each of ``counts`` floors.

    Args:
        scans: all with a usable reading; the features are those of all.
        rows: which of them are parted and looked at (n).
    """
    weights = [scan_weights(build_graph(scans, rule)) for rule in RULES]
    readings = audible_readings(scans.take(rows))
    alike = unit_rows(weights[1][rows].toarray())
    near = nearest(alike @ alike.T)
    parted: list[list[Labels]] = [[] for _ in counts]
    for each in weights:
        for directions in _DIRECTIONS:
            for steps in _STEPS:
                features = propagated_features(each, directions, steps, seed)[rows]
                for index, label in _partitions(features, counts, seed):
                    parted[index].append(label)
    return [
        _evidence(count, np.stack(labels), readings, near)
        for count, labels in zip(counts, parted, strict=True)
    ]


def _partitions(
    features: NDArray[np.float32], counts: Sequence[int], seed: int
) -> Iterator[tuple[int, Labels]]:
    """Partitions by every method, with the index of their number of parts."""
    yield from enumerate(
        cut_tree(linkage(features.astype(np.float64), "ward"), list(counts)).T.astype(np.int32)
    )
    yield from ((index, k_means(features, count, seed)) for index, count in enumerate(counts))
    for neighbours in _NEIGHBOURS:
        if neighbours < len(features) - 1:
            vectors = neighbour_vectors(features, max(counts), neighbours)
            if vectors is not None:
                for index, count in enumerate(counts):
                    yield index, k_means(unit_rows(vectors[:, :count]), count, seed)


def _evidence(
    count: int,
    labels: Labels,
    readings: NDArray[np.float32],
    near: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> Evidence:
    agreement = mean_agreement(labels, count)
    sizes = np.stack([np.bincount(label, minlength=count) for label in labels])
    order = np.argsort(-agreement, kind="stable")[:_MOST_AGREEING]
    apart = [separation(readings, labels[index]) for index in order if sizes[index].min() >= _FEWEST_OF_PART]
    even = sizes.min(1) >= np.maximum(_SMALLEST * labels.shape[1] / count, _FEWEST_OF_PART)
    gulfs = [gulf(near, label) if fit else -1.0 for label, fit in zip(labels, even, strict=True)]
    return Evidence(
        floors=count,
        agreement=float(agreement.mean()),
        separation=float(np.median(apart)) if apart else 0.0,
        gulf=float(np.quantile(gulfs, _BEST)),
    )


def separation(readings: NDArray[np.float32], label: Labels) -> float:
    """Mean difference in dB, each counted up to 15, of the loudness of transmitters in the two parts that are
    least apart. Parts without a transmitter that is heard well in one of them are not compared."""
    table = np.stack([loudness(readings[label == part]) for part in range(int(label.max()) + 1)])
    least = SLAB
    for one in range(len(table)):
        for other in range(one):
            well = np.maximum(table[one], table[other]) >= _HEARD_WELL
            if well.sum() >= LOUDEST:
                gap = np.abs(table[one] - table[other])[well]
                least = min(least, float(np.minimum(gap, SLAB).mean()))
    return least


def nearest(similar: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most alike others of each of n scans, at most 250, and how alike they are, by falling likeness."""
    others = similar.copy()
    np.fill_diagonal(others, -np.inf)
    most = min(_NEAREST, len(others) - 1)
    columns = np.argpartition(-others, most - 1, axis=1)[:, :most]
    values = np.take_along_axis(others, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def gulf(near: tuple[NDArray[np.int64], NDArray[np.float32]], label: Labels) -> float:
    """By how much nine in ten scans of every part are more alike to the third of their own than to any other:
    the least of the parts, -1 to 1. Of scans without one or the other among the nearest the last counts."""
    columns, alike = near
    own = label[columns] == label[:, None]
    scan = np.arange(len(label))
    beyond = np.where(own.all(1), -1, own.argmin(1))
    count = own.cumsum(1)
    third = np.where(count[:, -1] >= _OWN, (count >= _OWN).argmax(1), -1)
    gap = alike[scan, third] - alike[scan, beyond]
    return float(min(np.quantile(gap[label == part], 1 - _SHARE) for part in range(int(label.max()) + 1)))
