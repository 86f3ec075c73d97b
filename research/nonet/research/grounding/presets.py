"""What `nonet train grounding` can make: from which data, how large, how long."""

from __future__ import annotations

from dataclasses import dataclass

from nonet.research.fasternet.training import Schedule

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """One kind of training.

    Args:
        name: of the published model.
        expressions: human expressions to learn from, at most; None for all.
        photographs: whether regions of real photographs are learnt from too, with their colours.
        schedule: pace and batch.
    """

    name: str
    expressions: int | None
    photographs: bool
    schedule: Schedule


PRESETS = {
    "tiny": Preset(
        "ground_toy",
        300,
        False,
        Schedule(steps=20, batch=16, lr=1e-3, warmup=5, weight_decay=0.02, bfloat16=False, minutes=0.2),
    ),
    "annotations": Preset(
        "ground_regions",
        22_000,
        False,
        Schedule(
            steps=6000,
            batch=64,
            lr=1.5e-3,
            warmup=60,
            weight_decay=0.02,
            clip=1.0,
            ema=0.995,
            bfloat16=False,
            minutes=25,
        ),
    ),
    "photographs": Preset(
        "ground_regions_photographs",
        22_000,
        True,
        Schedule(
            steps=6000,
            batch=64,
            lr=1.5e-3,
            warmup=60,
            weight_decay=0.02,
            clip=1.0,
            ema=0.995,
            bfloat16=False,
            minutes=25,
        ),
    ),
}
