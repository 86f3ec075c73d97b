"""A tiny decoder from latents to pictures: separable convolutions, no attention, few blocks at large sizes.

Its rules are those of SnapGen's decoder (arXiv 2412.09619): narrower, shallower at high resolution, without
convolutions in shortcuts, group normalisation only once per block. The layout is a reconstruction to the
published 1.38 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from nonet.research.snapgen.blocks import Separable


@dataclass(frozen=True)
class DecoderConfig:
    """`latent_channels` in; `widths` and `blocks` by stage, each stage twice the size of the one before; 3
    colours out. `groups`: of group normalisation, 0 for none. Raises ValueError where these do not fit.
    """

    latent_channels: int = 16
    widths: tuple[int, ...] = (320, 192, 96, 48)
    blocks: tuple[int, ...] = (5, 2, 1, 1)
    groups: int = 16

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError("a decoder has one width and one number of blocks per stage")
        if self.groups and any(width % self.groups for width in self.widths):
            raise ValueError(f"the widths {self.widths} must be multiples of {self.groups} groups")

    @property
    def reduction(self) -> int:
        """Pixels per latent cell on each side."""
        return int(2 ** (len(self.widths) - 1))


PUBLISHED_SIZE = DecoderConfig()
"""1.38 M parameters, for 16-channel latents of an eighth of the picture's size."""

SMALL = DecoderConfig(latent_channels=32, widths=(192, 128, 64, 32), blocks=(4, 2, 1, 1))
"""About a third of that, for 32-channel latents of small pictures."""


class DecoderBlock(nn.Module):
    """x + S(SiLU(S(SiLU(norm(x))))) with separable convolutions S; maps (B, width, H, W)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width) if groups else nn.Identity()
        self.conv1 = Separable(width, width, bias=True)
        self.conv2 = Separable(width, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class TinyDecoder(nn.Module):
    """Latents (B, C, H, W) -> pictures (B, 3, H·reduction, W·reduction), nominally 0..1 but not clamped."""

    def __init__(self, config: DecoderConfig = PUBLISHED_SIZE) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(config.latent_channels, config.widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(DecoderBlock(width, config.groups) for _ in range(blocks)))
            for width, blocks in zip(config.widths, config.blocks, strict=True)
        )
        self.grow = nn.ModuleList(
            Separable(narrow, wide, bias=True)
            for narrow, wide in zip(config.widths[:-1], config.widths[1:], strict=True)
        )
        self.conv_out = nn.Conv2d(config.widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.stages[0](self.conv_in(latents))
        for grow, stage in zip(self.grow, list(self.stages)[1:], strict=True):
            x = stage(grow(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self.conv_out(F.silu(x))


class PictureDecoder(nn.Module):
    """A decoder as it is served: takes the latents of the flow and gives pictures in 0..1.

    `centre` (C,) and `scale` turn the flow's normalised latents into the decoder's: scale · x + centre.
    """

    def __init__(self, decoder: nn.Module, centre: Tensor, scale: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.centre: Tensor
        self.register_buffer("centre", centre.reshape(1, -1, 1, 1).float())
        self.scale = scale

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(latents * self.scale + self.centre).clamp(0.0, 1.0)
