"""Multiply-accumulate operations of AsCAN, the products inside attention among them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nonet.research.ascan.blocks import Attention


def macs(network: nn.Module, height: int, width: int | None = None) -> int:
    """Of one image (3, height, width), square by default: convolutions, linear layers, and 2·N²·C of each
    attention over N positions. Nothing is computed, shapes run through on the meta device.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, Attention):
            total += 2 * output.numel() * output.shape[1]

    twin = copy.deepcopy(network).to("meta").eval()
    hooks = [module.register_forward_hook(count) for module in twin.modules()]
    with torch.no_grad():
        twin(torch.empty(1, 3, height, width or height, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


def parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
