"""AsCAN's UNet for generation: convolution early and attention late on the way down, mirrored on the way up.

A layout such as ``CC|CCT|CTTT`` says the blocks of each stage on the way down, from the full size to the
smallest; the way up has them in reverse, and each block there is given the map that its mirror image made.
C is a residual block with the time, T a transformer over all places, with attention to the text if there is
one. The network predicts the velocity of a rectified flow (:mod:`nonet.research.snapgen.flow`), a documented
change: the objective of the paper is not known.

Source: the architecture figure of arXiv 2411.04967; counts of blocks and widths are reconstructions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nonet.research.snapgen.blocks import (
    MASKED,
    Downsample,
    ResBlock,
    SpatialTransformer,
    TimeEmbedding,
    TransformerLayer,
    Upsample,
)


@dataclass(frozen=True)
class GenerationConfig:
    """`layout` and `middle` as letters; `channels` by stage. Conditioned by one of `classes` or by a text of
    `context_width` (which `context_projection` projects and RMS-normalises). `head_dim`, `ffn_ratio`,
    `qk_norm`: of the transformers; `groups`: of group normalisation.

    Raises ValueError for other letters, other numbers of stages, and unless there is one kind of condition.
    """

    layout: str = "CC|CCT|CTTT"
    middle: str = "TTT"
    channels: tuple[int, ...] = (256, 512, 896)
    latent_channels: int = 4
    classes: int | None = None
    context_width: int | None = None
    context_projection: int | None = None
    head_dim: int = 64
    ffn_ratio: int = 4
    qk_norm: bool = True
    groups: int = 32

    def __post_init__(self) -> None:
        if len(self.down) != len(self.channels):
            raise ValueError(f"{self.layout} has {len(self.down)} stages, channels {len(self.channels)}")
        for stage in (*self.down, self.middle):
            if not stage or set(stage) - {"C", "T"}:
                raise ValueError(f"a stage must be one or more of C and T, not {stage!r}")
        if (self.classes is None) == (self.context_width is None):
            raise ValueError("the condition must be either one of classes or a text")

    @property
    def down(self) -> tuple[str, ...]:
        """Blocks by stage, from the full size down."""
        return tuple(self.layout.split("|"))

    @property
    def up(self) -> tuple[str, ...]:
        """Blocks by stage on the way up, from the smallest size: the mirror image of `down`."""
        return tuple(stage[::-1] for stage in reversed(self.down))

    @property
    def reduction(self) -> int:
        """What the sides of latents must be a multiple of."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def time_width(self) -> int:
        return 4 * self.channels[0]


CLASS_CONDITIONAL = GenerationConfig(channels=(320, 640, 1152), classes=1000)
"""For ImageNet at 256 pixels, 32 x 32 latents of 4 channels: 376 M parameters, 50 GMACs a step."""

TEXT_TO_IMAGE = GenerationConfig(
    layout="CC|CCTT|CTTTT",
    middle="TTTT",
    channels=(320, 640, 1280),
    latent_channels=16,
    context_width=4096,
    context_projection=1280,
)
"""The same network, wider and deeper, for a text of a T5-XXL-sized encoder."""


class TransformerBlock(nn.Module):
    """T where the width may change: a 1x1 convolution first if it does, then the transformer."""

    def __init__(self, width_in: int, width: int, config: GenerationConfig) -> None:
        super().__init__()
        self.merge = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        context = config.context_projection or config.context_width
        layer = TransformerLayer(
            width, config.head_dim, context, True, False, config.qk_norm, config.ffn_ratio
        )
        self.transformer = SpatialTransformer([layer], width, config.head_dim, False, config.groups)

    def forward(self, x: Tensor, context: Tensor | None, bias: Tensor | None) -> Tensor:
        return self.transformer(self.merge(x), context, bias)


class Stage(nn.Module):
    """Blocks at one size, of the letters `kinds` and input widths `widths_in`; gives every map it made.

    With `skips`, each block is given the last of them beside the map before it.
    """

    def __init__(self, kinds: str, widths_in: list[int], width: int, config: GenerationConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(width_in, width, config.time_width, separable=False, groups=config.groups)
            if kind == "C"
            else TransformerBlock(width_in, width, config)
            for kind, width_in in zip(kinds, widths_in, strict=True)
        )

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor] | None,
        time: Tensor,
        context: Tensor | None,
        bias: Tensor | None,
    ) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            if skips is not None:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, time) if isinstance(block, ResBlock) else block(x, context, bias)
            maps.append(x)
        return maps


class GenerationUNet(nn.Module):
    """Velocity (B, C, H, W) of noisy latents (B, C, H, W) at times (B,) under a condition.

    The condition is classes (B,), where `config.classes` stands for no class (guidance), or a text
    (B, L, context_width) with an optional mask (B, L): 1 a token, 0 padding. H and W must be multiples of
    `config.reduction`; raises ValueError for others.
    """

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__()
        self.config = config
        channels, last = config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.time = TimeEmbedding(channels[0], config.time_width)
        self.classes: nn.Embedding | None = None
        if config.classes is not None:
            self.classes = nn.Embedding(config.classes + 1, config.time_width)
            nn.init.normal_(self.classes.weight, std=0.02)
        self.context = nn.Sequential()
        if config.context_width is not None and config.context_projection is not None:
            self.context.append(nn.Linear(config.context_width, config.context_projection))
            self.context.append(nn.RMSNorm(config.context_projection, eps=1e-5))

        self.down, self.downsamples = nn.ModuleList(), nn.ModuleList()
        width = channels[0]
        for number, kinds in enumerate(config.down):
            out = channels[number]
            self.down.append(Stage(kinds, [width, *[out] * (len(kinds) - 1)], out, config))
            width = out
            if number < last:
                self.downsamples.append(Downsample(width))
        self.middle = Stage(config.middle, [width] * len(config.middle), width, config)
        self.up, self.upsamples = nn.ModuleList(), nn.ModuleList()
        for number, kinds in zip(range(last, -1, -1), config.up, strict=True):
            out = channels[number]
            self.up.append(Stage(kinds, [width + out, *[2 * out] * (len(kinds) - 1)], out, config))
            width = out
            if number:
                self.upsamples.append(Upsample(width))
        self.norm_out = nn.GroupNorm(config.groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        if self.conv_out.bias is not None:
            nn.init.zeros_(self.conv_out.bias)

    def forward(
        self, latents: Tensor, time: Tensor, condition: Tensor, context_mask: Tensor | None = None
    ) -> Tensor:
        if not torch.compiler.is_exporting():
            height, width = latents.shape[-2:]
            if height % self.config.reduction or width % self.config.reduction:
                raise ValueError(
                    f"latents of {height} x {width} must be multiples of {self.config.reduction} on each side"
                )
        embedded = self.time(time)
        context: Tensor | None = None
        if self.classes is not None:
            embedded = embedded + self.classes(condition)
        else:
            context = self.context(condition)
        bias = None if context_mask is None else ((1 - context_mask) * MASKED)[:, None, None, :]
        x = self.conv_in(latents)
        skips: list[Tensor] = []
        for stage, halve in zip(self.down, [*self.downsamples, nn.Identity()], strict=True):
            skips += stage(x, None, embedded, context, bias)
            x = halve(skips[-1])
        x = self.middle(x, None, embedded, context, bias)[-1]
        for stage, double in zip(self.up, [*self.upsamples, nn.Identity()], strict=True):
            x = double(stage(x, skips, embedded, context, bias)[-1])
        return self.conv_out(nn.functional.silu(self.norm_out(x)))
