"""Parameters and multiply-adds of a network with TVConv, counted from its modules and formed as in the
paper."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nonet.research.tvconv.layer import GeneratorConfig, TVConv


@dataclass(frozen=True)
class Count:
    """What a network costs.

    `parameters`: trained ones; `generators`: those of them that are in weight-generating blocks; `maps`:
    values of the affinity maps; `kernels`: values that stay when the generators are gone; `macs`:
    multiply-adds of convolutions, TVConvs and linear layers for one picture, `macs_with_norms`: and two
    operations for each batch-normalised value.
    """

    parameters: int
    generators: int
    maps: int
    kernels: int
    macs: int
    macs_with_norms: int


def count(network: nn.Module, size: int) -> Count:
    """Count `network` for one picture (3, size, size)."""
    twin = copy.deepcopy(network).eval()
    layers = [module for module in twin.modules() if isinstance(module, TVConv)]
    made = {id(module) for layer in layers for module in layer.generator.modules()}
    macs = norms = 0

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, norms
        if id(module) in made:
            return
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, TVConv):
            macs += output.numel() * module.kernel**2
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            norms += 2 * output.numel()

    hooks = [module.register_forward_hook(note) for module in twin.modules()]
    with torch.no_grad():
        twin(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return Count(
        parameters=sum(value.numel() for value in twin.parameters()),
        generators=sum(value.numel() for layer in layers for value in layer.generator.parameters()),
        maps=sum(layer.affinity_maps.numel() for layer in layers),
        kernels=sum(kernel_values(layer) for layer in layers),
        macs=macs,
        macs_with_norms=macs + norms,
    )


def kernel_values(layer: TVConv) -> int:
    """Values of all kernels of a layer, and its multiply-adds for one picture: k^2 c h w."""
    height, width = layer.output_size
    return layer.kernel**2 * layer.channels * height * width


def generator_parameters(layer: TVConv, config: GeneratorConfig) -> int:
    """Parameters of maps and generator by formula: c_A h w + 9 c_A c_B + 9 L c_B^2 + 9 c_B k^2 c +
    2 (L + 1) c_B h w."""
    height, width = layer.output_size
    area, hidden = height * width, config.channels
    return (
        config.maps * area
        + 9 * config.maps * hidden
        + 9 * config.layers * hidden**2
        + 9 * hidden * layer.kernel**2 * layer.channels
        + 2 * (config.layers + 1) * hidden * area
    )


def generator_macs(layer: TVConv, config: GeneratorConfig) -> int:
    """Multiply-adds of one run of the generator by formula: h w (9 c_A c_B + 9 L c_B^2 + 9 c_B k^2 c)."""
    height, width = layer.output_size
    hidden = config.channels
    weights = (
        9 * config.maps * hidden
        + 9 * config.layers * hidden**2
        + 9 * hidden * layer.kernel**2 * layer.channels
    )
    return height * width * weights
