"""Parameters and multiply-accumulates of a network, counted from shapes on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nonet.research.snapgen.config import UNetConfig
from nonet.research.snapgen.decoder import DecoderConfig, TinyDecoder
from nonet.research.snapgen.unet import UNet

CLIP_TOKENS = 77
"""Length of a text for CLIP's encoder, at which costs are compared."""


@dataclass(frozen=True)
class Cost:
    """`parameters`, and `macs`: multiply-accumulates of convolutions, linear layers and the two products of
    each attention, for one sample.
    """

    parameters: int
    macs: int


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def cost(network: nn.Module, run: Callable[[nn.Module], object]) -> Cost:
    """Cost of what `run` does with `network`; both must be of the meta device, where nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(network.eval())
    return Cost(parameters(network), counter.get_total_flops() // 2)


def unet_cost(config: UNetConfig, height: int, width: int | None = None, tokens: int = CLIP_TOKENS) -> Cost:
    """Cost of one step of a UNet for latents of height x width (square by default) and a text of `tokens`."""
    with torch.device("meta"):
        latents = torch.empty(1, config.latent_channels, height, width or height)
        context = torch.empty(1, tokens, config.context_width)
        return cost(UNet(config), lambda unet: unet(latents, torch.empty(1), context))


def decoder_cost(config: DecoderConfig, height: int, width: int | None = None) -> Cost:
    """Cost of decoding one picture from latents of height x width (square by default)."""
    with torch.device("meta"):
        latents = torch.empty(1, config.latent_channels, height, width or height)
        return cost(TinyDecoder(config), lambda decoder: decoder(latents))
