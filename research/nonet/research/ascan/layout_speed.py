"""CPU time of a picture for each layout of one budget, and for peers: networks run in turn, smallest time
kept.

One thread, FP32, PyTorch as it is, batch 1. The smallest process CPU time of the rounds is what other load on
the machine disturbs least, and only ratios of figures of one run mean something.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nonet.research.ascan.counting import macs, parameters
from nonet.research.ascan.fusion import fuse
from nonet.research.ascan.layouts import BUDGET, LAYOUTS, with_layout
from nonet.research.ascan.network import AsCAN


@dataclass(frozen=True)
class LayoutCost:
    """A layout's size, its work on a picture of `side`, its CPU time, and that time in units of the
    first's."""

    name: str
    layout: str
    side: int
    parameters: int
    macs: int
    milliseconds: float
    ratio: float


@torch.no_grad()
def cpu_milliseconds(networks: Mapping[str, nn.Module], side: int, rounds: int) -> dict[str, float]:
    """Process CPU time of one picture (3, side, side), the smallest of the rounds."""
    picture = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    best = dict.fromkeys(networks, float("inf"))
    for number in range(rounds + 1):
        for name, network in networks.items():
            began = time.process_time()
            network(picture)
            if number:  # the first round warms up
                best[name] = min(best[name], 1000 * (time.process_time() - began))
    return best


def layout_costs(side: int, rounds: int = 10) -> list[LayoutCost]:
    """All of :data:`LAYOUTS` at the same widths, the asymmetric first; batch normalisation folded."""
    torch.manual_seed(0)
    networks = {name: AsCAN(with_layout(BUDGET, name), 10) for name in LAYOUTS}
    times = cpu_milliseconds({name: fuse(network) for name, network in networks.items()}, side, rounds)
    base = times["asymmetric"]
    return [
        LayoutCost(
            name,
            LAYOUTS[name],
            side,
            parameters(network),
            macs(network, side),
            times[name],
            times[name] / base,
        )
        for name, network in networks.items()
    ]
