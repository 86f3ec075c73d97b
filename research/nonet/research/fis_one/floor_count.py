"""How many floors a building has, when nobody says.

From two floors upwards: is there one more? Each answer has a probability, learnt from buildings whose
floors are known, by what speaks for the larger numbers (``floor_evidence``); the number of floors is where
the answer is first no. So the estimate is a distribution, and says itself how sure it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from nonet.research.fis_one.building import FEWEST_FLOORS
from nonet.research.fis_one.floor_evidence import Evidence, gather_evidence
from nonet.runtime.scans import Scans

MOST_TRIED = 12
_SAMPLE = 1200
_SCANS_A_FLOOR = 4
_SURE = 0.9
_FEWER = 0.5  # probability of fewer floors than were given from which that is said
_APART = 0.03  # gulf below which not even the floors that were found stand apart

# Logistic regression on 12 surveys (5cd56bb5, 5cd969be, the same with even floors, CETC331; three seeds) and
# 77 made-up buildings of 2 to 12 floors: bench/learn_floor_count.py.
_CONSTANT, _SEPARATION, _AGREEMENT, _GULF = 0.87, 1.16, 3.27, 24.2
_USUAL_SEPARATION, _USUAL_GULF, _LEAST_GULF = 11.5, 0.1, 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class FloorCount:
    """An estimated number of floors, and why.

    Attributes:
        floors: the most probable number.
        chances: (number, probability) of all numbers that were considered, rising.
        evidence: what speaks for each of 2, 3, ... floors.
    """

    floors: int
    chances: tuple[tuple[int, float], ...]
    evidence: tuple[Evidence, ...]

    @property
    def warning(self) -> str | None:
        """Why not to rely on the number, in plain words; None if there is no reason."""
        if not self.evidence:
            return (
                f"too few different scans to estimate the number of floors: {self.floors} is assumed; give "
                "the number if you know it"
            )
        chance = dict(self.chances)[self.floors]
        others = [row for row in self.chances if row[0] != self.floors]
        rival, close = max(others, key=lambda row: row[1], default=(0, 0.0))
        if chance >= _SURE:
            apart = max((each.gulf for each in self.evidence if each.floors >= self.floors), default=0.0)
            if apart >= _APART:
                return None
            return (
                f"the number of floors was estimated as {self.floors}, but nothing shows these to be apart: "
                "it may be one floor; give the number if you know it"
            )
        also = f", {rival} of {close:.0%}" if close > 0 else ""
        return (
            f"the number of floors was estimated and is not certain: {self.floors} has a probability of "
            f"{chance:.0%}{also}; give the number if you know it"
        )

    def doubt(self, given: int) -> str | None:
        """That the scans may show fewer floors than the ``given`` number, in plain words; None if not."""
        if not self.evidence or given > self.evidence[-1].floors:
            return None
        fewer = sum(chance for floors, chance in self.chances if floors < given)
        if fewer < _FEWER:
            return None
        return (
            f"with a probability of {fewer:.0%} the scans show fewer than {given} floors (most likely "
            f"{self.floors}); if a floor has no scans, another one was divided in its place and the names of "
            "floors are wrong from there on: give only the floors that were scanned"
        )


def estimate_floors(
    scans: Scans, rows: NDArray[np.int64], seed: int, fewest: int = FEWEST_FLOORS
) -> FloorCount:
    """The most probable number of floors, ``fewest`` to 12, of the usable scans at ``rows``.

    Equal scans, which cached results give, are looked at once; of more than 1,200 as many are drawn evenly.
    Fewer scans than can show the floors give the fewest, as something uncertain.
    """
    usable = scans.take(rows)
    chosen = different(usable)
    if len(chosen) > _SAMPLE:
        chosen = np.sort(np.random.default_rng([seed, 8]).choice(chosen, _SAMPLE, replace=False))
    most = min(MOST_TRIED, len(chosen) // _SCANS_A_FLOOR)
    if most <= max(fewest, FEWEST_FLOORS):
        floors = min(fewest, len(rows))
        return FloorCount(floors, ((floors, 0.0),), ())
    evidence = gather_evidence(usable, chosen, range(FEWEST_FLOORS, most + 1), seed)
    chances = count_chances(evidence, fewest)
    best = max(chances, key=lambda row: row[1])
    return FloorCount(best[0], chances, tuple(evidence))


def count_chances(evidence: list[Evidence], fewest: int = FEWEST_FLOORS) -> tuple[tuple[int, float], ...]:
    """Each number from ``fewest`` on with its probability; they add up to 1."""
    left, chances = 1.0, []
    for index, here in enumerate(evidence):
        more = chance_of_more(evidence, index)
        chances.append((here.floors, left * (1 - more)))
        left *= more
    possible = [row for row in chances if row[0] >= fewest]
    total = sum(chance for _, chance in possible)
    even = 1 / len(possible)
    return tuple((floors, chance / total if total > 0 else even) for floors, chance in possible)


def chance_of_more(evidence: list[Evidence], index: int) -> float:
    """Probability of more floors than number ``index``, if there are so many; 0 for the last."""
    if index == len(evidence) - 1:
        return 0.0
    larger = evidence[index + 1 :]
    agreement = max(each.agreement for each in larger) - evidence[index].agreement
    gulf = max(each.gulf for each in larger)  # joining floors of a larger number leaves theirs
    logit = (
        _CONSTANT
        + _SEPARATION * (larger[0].separation - _USUAL_SEPARATION)
        + _AGREEMENT * agreement
        + _GULF * (max(gulf, _LEAST_GULF) - _USUAL_GULF)
    )
    return float(1 / (1 + np.exp(-logit)))


def different(scans: Scans) -> NDArray[np.int64]:
    """Which scans are not equal to one before."""
    seen: set[bytes] = set()
    first = []
    for row in range(len(scans)):
        part = slice(scans.offsets[row], scans.offsets[row + 1])
        content = scans.transmitter[part].tobytes() + scans.rssi[part].tobytes()
        if content not in seen:
            seen.add(content)
            first.append(row)
    return np.array(first, np.int64)
