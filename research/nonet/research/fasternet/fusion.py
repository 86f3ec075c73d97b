"""Batch normalisation folded into the convolution before it, for inference.

w' = w * gamma / sqrt(var + eps) and b' = beta + (b - mean) * gamma / sqrt(var + eps), per output channel. In
FasterNet the pairs are `patch_embed.proj -> norm`, every `reduction -> norm` and every `mlp.0 -> mlp.1`, and
nothing else.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from nonet.research.efficientnet_lite.network import EfficientNetLite0, InvertedResidual
from nonet.research.fasternet.network import Backbone, Block, PatchEmbed, PatchMerging

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution equal to `norm(conv(x))` with the running statistics; computed in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
    fused = copy.deepcopy(conv)
    fused.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float())
    fused.bias = nn.Parameter((norm.bias.double() + (bias - norm.running_mean.double()) * scale).float())
    return fused


def _fold(owner: nn.Module, conv: str, norm: str) -> None:
    setattr(owner, conv, folded(getattr(owner, conv), getattr(owner, norm)))
    setattr(owner, norm, nn.Identity())


def fuse(network: Network) -> Network:
    """A copy of a FasterNet or an EfficientNet-Lite in eval mode with every foldable normalisation folded.

    The dense FasterNet keeps its `norm0/2/4/6`: they follow a sum. Raises TypeError for another network.
    """
    fused = copy.deepcopy(network).eval()
    if isinstance(fused, Backbone):
        for module in fused.modules():
            if isinstance(module, PatchEmbed):
                _fold(module, "proj", "norm")
            elif isinstance(module, PatchMerging):
                _fold(module, "reduction", "norm")
            elif isinstance(module, Block):
                _fold(module.mlp, "0", "1")
    elif isinstance(fused, EfficientNetLite0):
        _fold(fused, "_conv_stem", "_bn0")
        for block in fused._blocks:
            assert isinstance(block, InvertedResidual)
            if block.expands:
                _fold(block, "_expand_conv", "_bn0")
            _fold(block, "_depthwise_conv", "_bn1")
            _fold(block, "_project_conv", "_bn2")
        _fold(fused, "_conv_head", "_bn1")
    else:
        raise TypeError(f"no folding rule for {type(network).__name__}")
    return fused
