"""The detectors that are trained, and how: what each learns from, its shape and its schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

from nonet.research.detection.network import Shape
from nonet.research.detection.views import Augmentation
from nonet.research.fasternet.training import Schedule


@dataclass(frozen=True)
class Preset:
    """One detector.

    Args:
        name: of the published model.
        family: of the published model.
        shape: of the network.
        whole, small: files of the bank: pictures seen alone or four together, and small ones only four
            together.
        schedule: pace of the training.
        shares: of a batch, how many views show one picture, four, and four small ones.
        augmentation: of the views.
        crop: side of the views of training where they are smaller than the input, a multiple of 32: all is
            convolution, and a part of a picture at its scale costs less; 0: the input's side.
        frozen: batches of views whose maps are computed once by a backbone that stays as it is; 0: the
            backbone learns too.
    """

    name: str
    family: str
    shape: Shape
    whole: tuple[str, ...]
    small: tuple[str, ...]
    schedule: Schedule
    shares: tuple[float, float, float] = (1.0, 0.0, 0.0)
    augmentation: Augmentation = field(default_factory=Augmentation)
    crop: int = 0
    frozen: int = 0


_COCO_WHOLE = ("voc", "flickr", "coco")
_COCO_SMALL = ("tiny",)
# In views of half the side, so around the scale at which the whole picture fits the input.
_LEVEL = Augmentation(zoom=(1.5, 2.8), plain=0.0, turn=True, light=0.25, focus=0.8)

# Debris may fill half of a picture: views that hold it whole, and views at its own scale.
_DEBRIS = Augmentation(zoom=(0.9, 2.2), plain=0.0, turn=True, light=0.25, focus=0.8)

PRESETS: dict[str, Preset] = {
    "coco": Preset(
        name="efficientnet_lite0_coco",
        family="coco",
        shape=Shape("efficientnet_lite0", 80, 256, width=80),
        whole=_COCO_WHOLE,
        small=_COCO_SMALL,
        schedule=Schedule(
            steps=4000, batch=32, lr=2e-3, warmup=200, clip=10.0, ema=0.999, bfloat16=False, minutes=60.0
        ),
        shares=(0.65, 0.15, 0.2),
        frozen=500,
    ),
    "coco_fasternet": Preset(
        name="fasternet_t0_coco",
        family="coco",
        shape=Shape("fasternet_t0", 80, 288, width=80),
        whole=_COCO_WHOLE,
        small=_COCO_SMALL,
        schedule=Schedule(steps=100_000, batch=128, lr=2e-3, warmup=500, clip=10.0, ema=0.9995, minutes=9.0),
        shares=(0.6, 0.15, 0.25),
    ),
    "fod": Preset(
        name="fasternet_nano_fod",
        family="fod",
        shape=Shape("fasternet_nano", 31, 320, width=64),
        whole=("fod",),
        small=(),
        schedule=Schedule(
            steps=6000, batch=16, lr=1.5e-3, warmup=100, clip=10.0, ema=0.998, bfloat16=False, minutes=30.0
        ),
        augmentation=_DEBRIS,
        crop=224,
    ),
    "cells": Preset(
        name="fasternet_nano_cells",
        family="cells",
        shape=Shape("fasternet_nano", 3, 320, width=64),
        whole=("cells",),
        small=(),
        schedule=Schedule(
            steps=4000, batch=16, lr=1.5e-3, warmup=100, clip=10.0, ema=0.998, bfloat16=False, minutes=25.0
        ),
        augmentation=_LEVEL,
        crop=160,
    ),
}
