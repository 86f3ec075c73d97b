"""Batch normalisation folded into the convolution before it, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from nonet.research.ascan.blocks import FusedMBConv
from nonet.research.ascan.network import Stem
from nonet.research.ascan.upernet import ConvNormAct
from nonet.research.fasternet.fusion import folded

Network = TypeVar("Network", bound=nn.Module)

#: Which normalisation follows which convolution, by the module that holds both.
_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    Stem: (("conv1", "norm1"), ("conv2", "norm2")),
    FusedMBConv: (("expand", "expand_norm"), ("project", "project_norm")),
    ConvNormAct: (("conv", "norm"),),
}


def fuse(network: Network) -> Network:
    """A copy of an AsCAN, with or without a segmentation head, in eval mode with every batch normalisation
    folded; it gives the same answers up to rounding.
    """
    fused = copy.deepcopy(network).eval()
    for module in fused.modules():
        for conv, norm in _PAIRS.get(type(module), ()):
            setattr(module, conv, folded(getattr(module, conv), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
    return fused
