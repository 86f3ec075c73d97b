"""Putting clusters in floor order: the best Hamiltonian path by similarity (paper, section 7)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nonet.runtime.errors import InvalidArgument

COSTS = ("inverse", "negative", "one_minus")
MOST_EXACT = 16
"""Clusters up to which the exact solver is used: its time grows with K^2 2^K."""

_UNRELATED = 1e6
_RESTARTS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class FloorOrder:
    """Clusters from the bottom floor up, the cost of that path, and the other order if one label cannot tell
    (it lies on the middle floor of an odd number)."""

    clusters: tuple[int, ...]
    cost: float
    other: tuple[int, ...] | None = None


def path_costs(similarity: NDArray[np.floating], kind: str = "inverse") -> NDArray[np.float64]:
    """Cost (K, K) of putting two clusters on neighbouring floors; a similarity of 0 costs a million."""
    if kind == "negative":
        return -similarity.astype(np.float64)
    if kind == "one_minus":
        return 1 - similarity.astype(np.float64)
    if kind != "inverse":
        raise InvalidArgument(f"cost must be one of {', '.join(COSTS)}, got '{kind}'")
    with np.errstate(divide="ignore"):
        return np.minimum(1 / np.maximum(similarity.astype(np.float64), 0), _UNRELATED)


def path_cost(cost: NDArray[np.floating], path: Iterable[int]) -> float:
    """Sum over neighbours in ``path``."""
    return float(sum(cost[one, other] for one, other in itertools.pairwise(path)))


def _subset_table(cost: NDArray[np.float64], start: int) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Held-Karp: ``best[set, end]``, least cost of a path from ``start`` through exactly the clusters of a
    bit set to ``end``, and the cluster before ``end`` on it."""
    count = len(cost)
    if count > MOST_EXACT:
        raise InvalidArgument(f"the exact order is for up to {MOST_EXACT} clusters, got {count}")
    best = np.full((1 << count, count), np.inf)
    before = np.full((1 << count, count), -1, np.int8)
    best[1 << start, start] = 0.0
    sets = np.arange(1 << count)
    size = np.array([int(each).bit_count() for each in sets])
    holds = (sets[:, None] >> np.arange(count)) & 1
    for members in range(2, count + 1):
        here = sets[(size == members) & (holds[:, start] == 1)]
        for end in range(count):
            if end == start:
                continue
            chosen = here[holds[here, end] == 1]
            ways = best[chosen ^ (1 << end)] + cost[:, end]  # (sets, previous)
            previous = ways.argmin(1)
            best[chosen, end] = ways[np.arange(len(chosen)), previous]
            before[chosen, end] = previous
    return best, before


def _trace(before: NDArray[np.int8], members: int, end: int) -> list[int]:
    path = [end]
    while before[members, path[-1]] >= 0:
        previous = int(before[members, path[-1]])
        members ^= 1 << path[-1]
        path.append(previous)
    return path[::-1]


def held_karp(cost: NDArray[np.floating], start: int) -> tuple[int, ...]:
    """The cheapest path through all clusters from ``start``, exactly.

    Time O(K^2 2^K), memory O(K 2^K). Raises InvalidArgument above MOST_EXACT clusters.
    """
    best, before = _subset_table(np.asarray(cost, np.float64), start)
    everything = len(best) - 1
    return tuple(_trace(before, everything, int(best[everything].argmin())))


def two_opt(cost: NDArray[np.floating], start: int, generator: np.random.Generator) -> tuple[int, ...]:
    """A good path through all clusters from ``start``: nearest neighbour and random starts, each improved by
    reversing segments (the last end free) until no reversal helps. Knows nothing of the true order."""
    costs = np.asarray(cost, np.float64)
    count = len(costs)
    nearest, left = [start], set(range(count)) - {start}
    while left:
        nearest.append(min(left, key=lambda each: (costs[nearest[-1], each], each)))
        left.remove(nearest[-1])
    others = np.array([each for each in range(count) if each != start])
    starts = [nearest, *([start, *generator.permutation(others).tolist()] for _ in range(_RESTARTS))]
    paths = [_improve(costs, path) for path in starts]
    return tuple(min(paths, key=lambda path: path_cost(costs, path)))


def _improve(cost: NDArray[np.float64], path: list[int]) -> list[int]:
    better = True
    while better:
        better = False
        for first in range(1, len(path) - 1):
            for last in range(first + 1, len(path)):
                change = cost[path[first - 1], path[last]] - cost[path[first - 1], path[first]]
                if last + 1 < len(path):
                    change += cost[path[first], path[last + 1]] - cost[path[last], path[last + 1]]
                if change < -1e-12:
                    path[first : last + 1] = path[first : last + 1][::-1]
                    better = True
    return path


def best_path(
    cost: NDArray[np.floating], start: int, generator: np.random.Generator | None = None
) -> tuple[int, ...]:
    """The exact path up to MOST_EXACT clusters, a good one above."""
    if len(cost) <= MOST_EXACT:
        return held_karp(cost, start)
    return two_opt(cost, start, generator or np.random.default_rng(0))


def order_clusters(cost: NDArray[np.floating], labelled: int, position: int) -> FloorOrder:
    """The order in which cluster ``labelled`` is floor ``position`` (1 = bottom).

    On the bottom or top floor the path starts there. Elsewhere the best path of all is taken if it has the
    cluster in that place, read in the direction that puts it there; on the middle floor of an odd number both
    directions do, and both are returned. If neither does, the best path with the cluster in that place.

    Raises InvalidArgument above MOST_EXACT clusters for a label that is not on the bottom or top floor, and
    for a position outside 1..K.
    """
    costs = np.asarray(cost, np.float64)
    count = len(costs)
    if not 1 <= position <= count:
        raise InvalidArgument(f"floor {position} of {count} does not exist", param="labelled")
    if position in (1, count):
        path = best_path(costs, labelled)
        return FloorOrder(path if position == 1 else path[::-1], path_cost(costs, path))
    free = _free_path(costs)
    place = free.index(labelled) + 1
    if place == position and count + 1 - place == position:
        path = free
    elif place == position:
        return FloorOrder(free, path_cost(costs, free))
    elif count + 1 - place == position:
        return FloorOrder(free[::-1], path_cost(costs, free))
    else:
        path = _path_through(costs, labelled, position)
    middle = 2 * position == count + 1
    return FloorOrder(path, path_cost(costs, path), path[::-1] if middle else None)


def _free_path(cost: NDArray[np.float64]) -> tuple[int, ...]:
    """The cheapest path with free ends: a dummy cluster without cost is put before it."""
    count = len(cost)
    if count < MOST_EXACT:
        padded = np.zeros((count + 1, count + 1))
        padded[:count, :count] = cost
        return held_karp(padded, count)[1:]
    paths = [held_karp(cost, start) for start in range(count)]
    return min(paths, key=lambda path: path_cost(cost, path))


def _path_through(cost: NDArray[np.float64], fixed: int, position: int) -> tuple[int, ...]:
    """The cheapest path that has ``fixed`` in place ``position``: two paths from it, over all splits."""
    count = len(cost)
    best, before = _subset_table(cost, fixed)
    everything = (1 << count) - 1
    ends = best.min(1)
    below = [
        members for members in range(1 << count) if members >> fixed & 1 and members.bit_count() == position
    ]
    rest = [everything ^ members | 1 << fixed for members in below]
    chosen = int(np.argmin(ends[below] + ends[rest]))
    down = _trace(before, below[chosen], int(best[below[chosen]].argmin()))
    up = _trace(before, rest[chosen], int(best[rest[chosen]].argmin()))
    return (*down[::-1], *up[1:])
