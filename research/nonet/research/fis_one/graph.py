"""The bipartite graph of scans and transmitters (paper, section 3).

Nodes 0..N-1 are scans, N..N+M-1 transmitters. An edge joins a scan and a transmitter heard in it; its weight
is a positive function of the received power. Missing readings are absent edges, nothing is filled in.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.scans import Scans

OFFSET = 120.0
"""c of the weight RSS + c, in dB; larger than every |RSS| that is kept."""

WEAKEST_KEPT = -90.0
"""Readings below this many dBm are dropped."""

WEIGHTS = ("offset", "power", "sharp")


@dataclasses.dataclass(frozen=True, slots=True)
class GraphRule:
    """Which readings become edges and what they weigh.

    Args:
        weakest: dBm; weaker readings are dropped.
        weight: "offset" = RSS + 120 (the paper), "power" = 10^(RSS / 10),
            "sharp" = 10^((RSS + 90) / sharpness).
        sharpness: dB in which the weight "sharp" grows tenfold.
    """

    weakest: float = WEAKEST_KEPT
    weight: str = "offset"
    sharpness: float = 40.0

    def __post_init__(self) -> None:
        if self.weight not in WEIGHTS:
            raise InvalidArgument(f"weight must be one of {', '.join(WEIGHTS)}, got '{self.weight}'")
        if not self.weakest > -OFFSET:
            raise InvalidArgument(f"weakest must be above {-OFFSET:.0f} dBm")

    def weigh(self, rssi: NDArray[np.floating]) -> NDArray[np.float64]:
        """Weights above 0 for readings in dBm, all of them at least ``weakest``."""
        values = rssi.astype(np.float64)
        if self.weight == "offset":
            return values + OFFSET
        if self.weight == "power":
            return 10 ** (values / 10)
        return 10 ** ((values + 90) / self.sharpness)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SignalGraph:
    """Adjacency of all n = N + M nodes as compressed rows, both directions of each edge.

    Attributes:
        scans: N. transmitters: M.
        offsets: int64 (n + 1). neighbour: int32 (2E), node numbers. weight: float64 (2E).
        scan_rows: int64 (N), which scan of the input a node is.
        columns: int64 (M), which transmitter of the input a node is.
    """

    scans: int
    transmitters: int
    offsets: NDArray[np.int64]
    neighbour: NDArray[np.int32]
    weight: NDArray[np.float64]
    scan_rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @property
    def nodes(self) -> int:
        return self.scans + self.transmitters

    @property
    def edges(self) -> int:
        return len(self.neighbour) // 2

    @property
    def degree(self) -> NDArray[np.int64]:
        """Number of neighbours of each node (n)."""
        return np.diff(self.offsets)


def build_graph(scans: Scans, rule: GraphRule) -> SignalGraph:
    """The graph of ``scans``; scans and transmitters left without a reading are no nodes.

    Raises InvalidArgument if nothing is left.
    """
    kept = scans.rssi >= rule.weakest
    row = np.repeat(np.arange(len(scans)), np.diff(scans.offsets))[kept]
    column = scans.transmitter[kept].astype(np.int64)
    if not len(row):
        raise InvalidArgument(f"no scan has a reading of {rule.weakest:.0f} dBm or more", param="scans")
    weight = rule.weigh(scans.rssi[kept])
    scan_rows, u = np.unique(row, return_inverse=True)
    columns, v = np.unique(column, return_inverse=True)
    count, heard = len(scan_rows), len(columns)
    by_transmitter = np.argsort(v, kind="stable")
    degree = np.concatenate([np.bincount(u, minlength=count), np.bincount(v, minlength=heard)])
    return SignalGraph(
        scans=count,
        transmitters=heard,
        offsets=np.concatenate([[0], np.cumsum(degree)]).astype(np.int64),
        neighbour=np.concatenate([v + count, u[by_transmitter]]).astype(np.int32),
        weight=np.concatenate([weight, weight[by_transmitter]]),
        scan_rows=scan_rows,
        columns=columns,
    )
