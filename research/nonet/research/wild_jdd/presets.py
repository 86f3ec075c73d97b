"""Named training configurations."""

from __future__ import annotations

from nonet.research.wild_jdd.degradation import PriorConfig
from nonet.research.wild_jdd.network import NETWORKS
from nonet.research.wild_jdd.noise import NoiseRange
from nonet.research.wild_jdd.photographs import PatchSource
from nonet.research.wild_jdd.train import Loss, TrainConfig

PRESETS: dict[str, TrainConfig] = {
    # Seconds: proves the path from photographs to a published version.
    "tiny": TrainConfig(network=NETWORKS["tiny"], steps=40, batch=4, patches=PatchSource(size=32), border=4),
    # About half an hour of one core, from random weights, no third-party start.
    "small": TrainConfig(
        network=NETWORKS["small"], steps=12_000, batch=12, patches=PatchSource(size=64), border=6, rate=2e-3
    ),
    # The published version: Gharbi et al.'s weights taught noise, uncertainty and colour within 85 minutes
    # of one core.
    "served": TrainConfig(
        network=NETWORKS["chain"],
        published_start=True,
        noise=NoiseRange(clean=0.25),
        clean_end=0.4,
        balance_end=0.25,
        rate=3e-4,
        steps=1_000_000,
        minutes=85,
    ),
    # The published version taught on: L2 moves the image; beside the truth demosaicnet speaks where there is
    # no noise, the noise-aware network where there is. So the prior need not keep noisy patches in balance:
    # it may say how little noise there is. It trusts the truth less, or errors of the image would count as
    # noise.
    "taught": TrainConfig(
        network=NETWORKS["chain"],
        loss=Loss.SPLIT,
        own_start=True,
        taught=0.5,
        prior=PriorConfig(trust=10.0, floor=0.5),
        noise=NoiseRange(clean=0.2, bend=1.5),
        balance=0.25,
        rate=2e-4,
        steps=1_000_000,
        minutes=85,
    ),
    # The paper's kind of network. Its size and schedule are not public; needs a GPU and days.
    "paper": TrainConfig(
        network=NETWORKS["full"],
        noise=NoiseRange(high=30.0),
        patches=PatchSource(size=128),
        steps=500_000,
        batch=16,
        rate=2e-4,
        balance=0.0,
    ),
}
