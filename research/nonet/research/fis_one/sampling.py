"""Draws from the graph: neighbours, edges, walks and negatives, each by its weight (paper, 4.1 and 4.3).

Weighted draws use alias tables (Walker 1977; Vose 1991): building one takes a pass over the edges, a draw two
look-ups whatever the degree.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from nonet.research.fis_one.graph import SignalGraph
from nonet.runtime.errors import InvalidArgument

NEGATIVE_POWER = 0.75
ATTENTIONS = ("none", "sampling", "sampling+aggregate")

MOST_DECOMPOSED = 10_000
"""Scans whose weights are decomposed into singular vectors; of more, as many are drawn evenly. What the
transmitters have in common shows in them, and the other scans are projected on it."""


def drawn_evenly(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Which of ``count`` rows to look at: all, or ``most`` drawn evenly, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 10]).choice(count, most, replace=False))


class AliasTable:
    """Draws an entry of a row with probability proportional to its weight, for many rows at once.

    Args:
        offsets: int64 (rows + 1), no row empty. weight: float64 (entries), above 0.
    """

    def __init__(self, offsets: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        self._start, self._length = offsets[:-1], np.diff(offsets)
        row = np.repeat(np.arange(len(self._length)), self._length)
        total = np.bincount(row, weight, len(self._length))
        self._keep, self._alias = _share_cells(row, weight * (self._length / total)[row])

    def draw(
        self, rows: NDArray[np.integer], count: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Entry numbers (len(rows), count), drawn independently and with replacement."""
        spread = generator.random((len(rows), count)) * self._length[rows][:, None]
        cell = np.minimum(spread.astype(np.int64), self._length[rows][:, None] - 1)
        entry = cell + self._start[rows][:, None]
        return np.where(spread - cell < self._keep[entry], entry, self._alias[entry])


def _share_cells(
    row: NDArray[np.int64], size: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vose's sweep for all rows at once. ``size`` averages 1 in each row.

    Small entries are filled in order by the large ones of their row; the large entry that is being emptied
    when a small one's turn comes fills it whole, and what it then lacks itself the next large one fills. With
    running sums both are look-ups: a small entry is filled by the first large one whose running surplus
    exceeds the deficits before it, and a large one lacks the running deficit that first passes its surplus.
    """
    keep, alias = np.ones(len(size)), np.arange(len(size))
    small = size < 1
    low, high = np.flatnonzero(small), np.flatnonzero(~small)
    if not len(low):
        return keep, alias
    rows = int(row[-1]) + 1
    # The sums of a row start anew at 2 * row * (entries + 1), which no sum of an earlier row reaches.
    base = np.arange(rows) * 2.0 * (len(size) / rows + np.bincount(row).max() + 1)
    deficit = _running(1 - size[low], row[low], rows)
    surplus = _running(size[high] - 1, row[high], rows)
    before = deficit - (1 - size[low])
    last_of_row = np.searchsorted(row[high], np.arange(rows), side="right") - 1
    filler = np.searchsorted(surplus + base[row[high]], before + base[row[low]], side="right")
    filler = np.minimum(filler, last_of_row[row[low]])
    keep[low], alias[low] = size[low], high[filler]
    passing = np.searchsorted(deficit + base[row[low]], surplus + base[row[high]], side="right")
    inside = passing < len(low)
    passing = np.minimum(passing, len(low) - 1)
    lacking = inside & (row[low][passing] == row[high]) & (np.arange(len(high)) < last_of_row[row[high]])
    keep[high[lacking]] = np.clip(1 - (deficit[passing] - surplus)[lacking], 0, 1)
    alias[high[lacking]] = high[np.flatnonzero(lacking) + 1]
    return keep, alias


def _running(values: NDArray[np.float64], row: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
    """Running sums that start anew with each row."""
    total = np.cumsum(values)
    ends = np.searchsorted(row, np.arange(rows), side="left")
    before = np.where(ends > 0, total[np.maximum(ends, 1) - 1], 0.0)
    return total - before[row]


class Sampler:
    """The draws a training step needs, from one explicit generator.

    Args:
        graph: to draw from.
        attention: "none" draws neighbours evenly, the others in proportion to the weights.
        generator: of every draw.
    """

    def __init__(self, graph: SignalGraph, attention: str, generator: np.random.Generator) -> None:
        if attention not in ATTENTIONS:
            raise InvalidArgument(f"attention must be one of {', '.join(ATTENTIONS)}, got '{attention}'")
        self.graph = graph
        self.attention = attention
        self.generator = generator
        weight = np.ones_like(graph.weight) if attention == "none" else graph.weight
        self._neighbours = AliasTable(graph.offsets, weight)
        whole = np.array([0, graph.edges], np.int64)
        edges = graph.weight[: graph.edges]  # the scans' rows come first and hold each edge once
        self._edges = AliasTable(whole, np.ones_like(edges) if attention == "none" else edges)
        self._edge_scan = np.repeat(np.arange(graph.scans), graph.degree[: graph.scans])
        law = graph.degree.astype(np.float64) ** NEGATIVE_POWER
        self._negatives = AliasTable(np.array([0, graph.nodes], np.int64), law)
        self._all = np.arange(graph.nodes)

    def neighbourhood(self, fan_out: int) -> sparse.csr_matrix:
        """A drawn neighbourhood of every node as a row-stochastic matrix (n, n) float32 with ``fan_out``
        entries a row (a neighbour drawn twice has two)."""
        entry = self._neighbours.draw(self._all, fan_out, self.generator)
        columns = self.graph.neighbour[entry]
        if self.attention == "sampling+aggregate":
            share = self.graph.weight[entry]
            share = share / share.sum(axis=1, keepdims=True)
        else:
            share = np.full(entry.shape, 1.0 / fan_out)
        offsets = np.arange(self.graph.nodes + 1, dtype=np.int32) * fan_out
        return sparse.csr_matrix(
            (share.astype(np.float32).ravel(), columns.ravel(), offsets),
            shape=(self.graph.nodes, self.graph.nodes),
        )

    def edges(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``count`` edges drawn by weight, each in a random direction: two vectors of node numbers."""
        edge = self._edges.draw(np.zeros(1, np.int64), count, self.generator)[0]
        scan, transmitter = self._edge_scan[edge], self.graph.neighbour[edge].astype(np.int64)
        turned = self.generator.random(count) < 0.5
        return np.where(turned, transmitter, scan), np.where(turned, scan, transmitter)

    def walks(self, count: int, length: int) -> NDArray[np.int64]:
        """Random walks (count, length + 1) of node numbers, transitions in proportion to the weights; starts
        are drawn by degree."""
        edge = self.generator.integers(0, len(self.graph.neighbour), count)
        steps = [self.graph.neighbour[edge].astype(np.int64)]
        for _ in range(length):
            entry = self._neighbours.draw(steps[-1], 1, self.generator)[:, 0]
            steps.append(self.graph.neighbour[entry].astype(np.int64))
        return np.stack(steps, axis=1)

    def negatives(self, count: int) -> NDArray[np.int64]:
        """``count`` nodes drawn in proportion to degree^0.75."""
        return self._negatives.draw(np.zeros(1, np.int64), count, self.generator)[0]


def full_neighbourhood(graph: SignalGraph, attention: str) -> sparse.csr_matrix:
    """The expectation of a drawn neighbourhood (n, n) float32: all neighbours, weighted as the sampler draws
    them (section 4.5)."""
    row = np.repeat(np.arange(graph.nodes), graph.degree)
    weight = np.ones_like(graph.weight) if attention == "none" else graph.weight
    total = np.bincount(row, weight, graph.nodes)
    share = (weight / total[row]).astype(np.float32)
    return sparse.csr_matrix((share, graph.neighbour, graph.offsets), shape=(graph.nodes, graph.nodes))
