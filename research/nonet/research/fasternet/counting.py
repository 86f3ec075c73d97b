"""Parameters and multiply-accumulate operations, counted exactly from the shapes that really occur."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one image.

    `macs`: convolutions and linear layers, biases not counted. `fvcore`: what the fvcore counter prints for
    the same network, which adds two operations per batch-normalised value and one per pooled value.
    """

    macs: int
    fvcore: int


def parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def cost(network: nn.Module, size: int | tuple[int, int]) -> Cost:
    """Cost of one (3, size, size) image, or (3, rows, columns): nothing is computed, shapes run through on
    the meta device.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    macs = extra = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, extra
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d):
            extra += 2 * output.numel()
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            extra += inputs[0].numel()

    twin = copy.deepcopy(network).to("meta").eval()
    hooks = [module.register_forward_hook(count) for module in twin.modules()]
    with torch.no_grad():
        twin(torch.empty(1, 3, rows, columns, device="meta"))
    for hook in hooks:
        hook.remove()
    return Cost(macs, macs + extra)
