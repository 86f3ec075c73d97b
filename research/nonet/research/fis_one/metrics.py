"""How well floors were found (paper, section 8). All of these need the true floors."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb

_PREFIX_SCALE = 0.1
_LONGEST_PREFIX = 4


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FloorScores:
    """ARI, NMI, edit similarity and floor accuracy, and the confusion matrix (true floor, found floor)."""

    ari: float
    nmi: float
    edit: float
    accuracy: float
    confusion: NDArray[np.int64]


def contingency(one: NDArray[np.integer], other: NDArray[np.integer]) -> NDArray[np.int64]:
    """Counts of pairs of labels (labels of one, labels of other), both numbered from 0."""
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1), np.int64)
    np.add.at(table, (one, other), 1)
    return table


def adjusted_rand(truth: NDArray[np.integer], found: NDArray[np.integer]) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985): 1 for equal partitions, about 0 by chance."""
    table = contingency(truth, found)
    pairs = comb(table, 2).sum()
    rows, columns = comb(table.sum(1), 2).sum(), comb(table.sum(0), 2).sum()
    expected = rows * columns / comb(table.sum(), 2)
    largest = (rows + columns) / 2
    return 1.0 if largest == expected else float((pairs - expected) / (largest - expected))


def mutual_information(truth: NDArray[np.integer], found: NDArray[np.integer]) -> float:
    """Normalised mutual information, by the arithmetic mean of the entropies, 0 to 1."""
    table = contingency(truth, found)
    joint = table / table.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    there = joint > 0
    shared = float((joint[there] * np.log(joint[there] / np.outer(rows, columns)[there])).sum())
    mean = (_entropy(rows) + _entropy(columns)) / 2
    return 1.0 if mean == 0 else shared / mean


def _entropy(shares: NDArray[np.floating]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def jaro_winkler(one: str, other: str) -> float:
    """Jaro-Winkler similarity of two strings: 1 for equal ones, 0 with nothing in common."""
    if not one or not other:
        return 1.0 if one == other else 0.0
    reach = max(max(len(one), len(other)) // 2 - 1, 0)
    taken = [False] * len(other)
    matched = []
    for index, letter in enumerate(one):
        for place in range(max(0, index - reach), min(len(other), index + reach + 1)):
            if not taken[place] and other[place] == letter:
                taken[place] = True
                matched.append(letter)
                break
    if not matched:
        return 0.0
    across = [letter for place, letter in enumerate(other) if taken[place]]
    moved = sum(a != b for a, b in zip(matched, across, strict=True)) / 2
    count = len(matched)
    jaro = (count / len(one) + count / len(other) + (count - moved) / count) / 3
    prefix = 0
    for a, b in zip(one[:_LONGEST_PREFIX], other[:_LONGEST_PREFIX], strict=False):
        if a != b:
            break
        prefix += 1
    return jaro + prefix * _PREFIX_SCALE * (1 - jaro)


def match_floors(truth: NDArray[np.integer], found: NDArray[np.integer], floors: int) -> NDArray[np.int64]:
    """The true floor each cluster stands for (clusters): by falling size each takes its most frequent floor
    that is still free; what is left takes what is left."""
    table = np.zeros((int(found.max()) + 1, floors), np.int64)
    np.add.at(table, (found, truth), 1)
    matched = np.full(len(table), -1, np.int64)
    free = set(range(floors))
    late = []
    for cluster in np.argsort(-table.sum(1), kind="stable"):
        wanted = [floor for floor in np.argsort(-table[cluster], kind="stable") if floor in free]
        if wanted and table[cluster, wanted[0]] > 0:
            matched[cluster] = wanted[0]
            free.remove(int(wanted[0]))
        else:
            late.append(cluster)
    for cluster in late:
        matched[cluster] = free.pop() if free else floors - 1
    return matched


def order_similarity(truth: NDArray[np.integer], placed: NDArray[np.integer], floors: int) -> float:
    """The paper's "edit distance": Jaro-Winkler of the true order and the order of the found floors, 1 =
    exact. ``placed`` is the found floor of each scan."""
    matched = match_floors(truth, placed, floors)
    letters = [chr(ord("0") + rank) for rank in range(floors)]
    found = "".join(letters[floor] for floor in matched)
    return jaro_winkler("".join(letters), found)


def score_floors(truth: NDArray[np.integer], placed: NDArray[np.integer], floors: int) -> FloorScores:
    """All scores of found floors ``placed`` (N) against ``truth`` (N), both numbered from the bottom."""
    confusion = np.zeros((floors, max(floors, int(placed.max()) + 1)), np.int64)
    np.add.at(confusion, (truth, placed), 1)
    return FloorScores(
        ari=adjusted_rand(truth, placed),
        nmi=mutual_information(truth, placed),
        edit=order_similarity(truth, placed, floors),
        accuracy=float((truth == placed).mean()),
        confusion=confusion,
    )


def mean_agreement(labels: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """Mean adjusted Rand index of each partition (p, n) into ``count`` parts with all others (p)."""
    ways, points = labels.shape
    member = np.eye(count, dtype=np.float32)[labels].transpose(1, 0, 2).reshape(points, ways * count)
    table = (member.T @ member).astype(np.float64).reshape(ways, count, ways, count)
    pairs = (table * (table - 1) / 2).sum(axis=(1, 3))
    own = np.diagonal(pairs)
    expected = own[:, None] * own[None] / (points * (points - 1) / 2)
    most = (own[:, None] + own[None]) / 2
    index = np.divide(pairs - expected, most - expected, out=np.ones_like(pairs), where=most > expected)
    mean: NDArray[np.float64] = (index.sum(1) - 1) / max(ways - 1, 1)
    return mean
