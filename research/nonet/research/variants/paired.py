"""Whether two classifiers that saw the same examples differ by more than chance: McNemar's exact test.

Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12 (1947). Only the examples that one of the two has right alone tell them apart; were they
equally good, each of those would fall to either with probability 1/2.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

__all__ = ["Pair", "compare"]


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Of ``examples``, how many each has right, and how many it alone; ``p``: the probability of a difference
    at least as large between two that are equally good."""

    examples: int
    first: int
    second: int
    only_first: int
    only_second: int
    p: float

    @property
    def loss(self) -> float:
        """The first one's share of right answers less the second's, -1 to 1."""
        return (self.first - self.second) / self.examples


def compare(first: np.ndarray, second: np.ndarray) -> Pair:
    """Compare two arrays (N,) of bool: which examples each has right. N must be at least 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    tail = sum(math.comb(differ, count) for count in range(min(only_first, only_second) + 1))
    return Pair(
        examples=len(first),
        first=int(first.sum()),
        second=int(second.sum()),
        only_first=only_first,
        only_second=only_second,
        p=min(1.0, 2 * tail / 2**differ),
    )
