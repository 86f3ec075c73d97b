"""What `nonet train grounding` can make: from which data, how large, how long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nonet.research.fasternet.training import Schedule

__all__ = ["PRESETS", "Preset"]


_LONG = Schedule(
    steps=6000,
    batch=64,
    lr=1.5e-3,
    warmup=60,
    weight_decay=0.02,
    clip=1.0,
    ema=0.995,
    bfloat16=False,
    minutes=25,
)


@dataclass(frozen=True)
class Preset:
    """One kind of training.

    Args:
        name: of the published model.
        expressions: human expressions to learn from, at most; None for all.
        photographs: whether regions of real photographs are learnt from too, with their colours.
        begins_with: the model of another preset whose weights it goes on from; "" for random ones.
        schedule: pace and batch.
    """

    name: str
    expressions: int | None
    photographs: bool
    begins_with: str
    schedule: Schedule


PRESETS = {
    "tiny": Preset(
        "ground_toy",
        300,
        False,
        "",
        Schedule(steps=20, batch=16, lr=1e-3, warmup=5, weight_decay=0.02, bfloat16=False, minutes=2),
    ),
    "annotations": Preset("ground_regions", 22_000, False, "", _LONG),
    "photographs": Preset(
        "ground_regions_photographs",
        12_000,
        True,
        "ground_regions",
        replace(_LONG, lr=7e-4, minutes=15),
    ),
}
