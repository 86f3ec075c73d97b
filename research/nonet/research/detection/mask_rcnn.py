"""The paper's detector, Mask R-CNN with a feature pyramid on a dense FasterNet: to be counted, not trained.

Source: FasterNet (CVPR 2023), section 4.3 and table 4: 80 classes, three anchors at each of five levels, 1000
proposals, 100 masks. Heads as K. He et al., "Mask R-CNN", ICCV 2017, arXiv 1703.06870, and T.-Y. Lin et al.,
"Feature Pyramid Networks", CVPR 2017, arXiv 1612.03144, in the two-stage form that the authors' code uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from nonet.research.fasternet.counting import cost
from nonet.research.fasternet.network import VARIANTS, FasterNetDense

CHANNELS: Final = 256
LEVELS: Final = 5
#: Parameters in millions and multiply-adds in billions at 1280 x 800, as printed in the paper.
PUBLISHED: Final = {"s": (49.0, 258), "m": (71.2, 344), "l": (110.9, 484)}


@dataclass(frozen=True)
class MaskRcnn:
    """Shape of the detector on a FasterNet variant; the defaults are the published ones."""

    variant: str
    classes: int = 80
    anchors: int = 3
    width: int = 1280
    height: int = 800
    proposals: int = 1000
    masks: int = 100

    def backbone(self) -> FasterNetDense:
        """Maps at strides 4, 8, 16, 32, each with its own normalisation."""
        return FasterNetDense(VARIANTS[self.variant])

    def pyramid(self) -> nn.ModuleDict:
        """A lateral and an output convolution for each of the backbone's maps; the fifth level is pooled."""
        dim = VARIANTS[self.variant].embed_dim
        return nn.ModuleDict(
            {
                "lateral": nn.ModuleList(nn.Conv2d(dim * 2**index, CHANNELS, 1) for index in range(4)),
                "output": nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(4)),
            }
        )

    def proposal_head(self) -> nn.ModuleDict:
        """Of every level, shared: objectness and box of each anchor."""
        return nn.ModuleDict(
            {
                "shared": nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
                "objectness": nn.Conv2d(CHANNELS, self.anchors, 1),
                "box": nn.Conv2d(CHANNELS, 4 * self.anchors, 1),
            }
        )

    def box_head(self) -> nn.ModuleDict:
        """Of each proposal's 7 x 7 map: scores, background among them, and a box for each class."""
        return nn.ModuleDict(
            {
                "first": nn.Linear(CHANNELS * 49, 1024),
                "second": nn.Linear(1024, 1024),
                "scores": nn.Linear(1024, self.classes + 1),
                "boxes": nn.Linear(1024, 4 * self.classes),
            }
        )

    def mask_head(self) -> nn.ModuleDict:
        """Of each detection's 14 x 14 map: a mask of 28 x 28 for each class."""
        return nn.ModuleDict(
            {
                "convolutions": nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(4)),
                "upsample": nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2),
                "masks": nn.Conv2d(CHANNELS, self.classes, 1),
            }
        )

    def parameters(self) -> dict[str, int]:
        """Parameters of each part."""
        parts = ("backbone", "pyramid", "proposal_head", "box_head", "mask_head")
        with torch.device("meta"):
            return {
                part: sum(value.numel() for value in getattr(self, part)().parameters()) for part in parts
            }

    def macs(self) -> dict[str, int]:
        """Multiply-adds of each part for one picture. `mask_predictor` is the mask head's upsampling and last
        convolution, which the published totals leave out.
        """
        places = [-(-self.width // stride) * -(-self.height // stride) for stride in (4, 8, 16, 32, 64)]
        with torch.device("meta"):
            backbone = cost(self.backbone(), (self.height, self.width)).macs
        dim = VARIANTS[self.variant].embed_dim
        square = 9 * CHANNELS**2
        return {
            "backbone": backbone,
            "pyramid": sum(
                places[index] * (dim * 2**index * CHANNELS + square) for index in range(LEVELS - 1)
            ),
            "proposal_head": sum(places) * (square + 5 * self.anchors * CHANNELS),
            "box_head": self.proposals * (CHANNELS * 49 * 1024 + 1024**2 + 1024 * (5 * self.classes + 1)),
            "mask_head": self.masks * 4 * square * 14**2,
            "mask_predictor": self.masks * (4 * CHANNELS**2 * 14**2 + CHANNELS * self.classes * 28**2),
        }
