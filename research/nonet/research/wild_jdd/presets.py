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
    # One blind network: Gharbi et al.'s weights taught noise, uncertainty and colour within 85 minutes of one
    # core. The blind expert of `served` begins from what it gave.
    "single": TrainConfig(
        network=NETWORKS["chain"],
        published_start=True,
        noise=NoiseRange(clean=0.25),
        clean_end=0.4,
        balance_end=0.25,
        rate=3e-4,
        steps=1_000_000,
        minutes=85,
    ),
    # The published version: three experts, of which this trains all but the one that never saw noise.
    "served": TrainConfig(
        network=NETWORKS["mixture"],
        loss=Loss.SPLIT,
        published_start=True,
        # L2 moves the image, so the prior need not keep noisy patches in balance: it may say how little noise
        # there is, and trusts the truth less, or errors of the image would count as noise.
        prior=PriorConfig(trust=10.0, floor=0.5),
        noise=NoiseRange(clean=0.15, bend=1.5),
        patches=PatchSource(size=64),
        level_first=0.12,
        taught=0.2,
        expert_rate=0.05,
        balance=0.25,
        rate=1e-3,
        batch=6,
        average=0.995,
        steps=1_000_000,
        minutes=45,
        low_precision=False,
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
