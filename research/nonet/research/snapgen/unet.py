"""SnapGen's UNet: predicts the velocity of the flow from noisy latents, the time and a text.

Down the stages, a middle, and up again with the maps of the way down concatenated (their order is that of
SDXL's UNet: the first convolution, every pair, every halving). All shapes are in :mod:`.config`.

Source: arXiv 2412.09619.
"""

from __future__ import annotations

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
from nonet.research.snapgen.config import UNetConfig


class Pair(nn.Module):
    """A residual block and a transformer after it; either may be absent."""

    def __init__(self, res: ResBlock | None, transformer: SpatialTransformer | None) -> None:
        super().__init__()
        self.res, self.transformer = res, transformer

    def forward(self, x: Tensor, time: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        if self.res is not None:
            x = self.res(x, time)
        return x if self.transformer is None else self.transformer(x, context, bias)


class DownStage(nn.Module):
    """Pairs at one size on the way down, then the halving where there is one; gives every map it made."""

    def __init__(self, pairs: list[Pair], sampler: Downsample | None) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(pairs)
        self.sampler = sampler

    def forward(self, x: Tensor, time: Tensor, context: Tensor, bias: Tensor | None) -> list[Tensor]:
        maps = []
        for pair in self.pairs:
            x = pair(x, time, context, bias)
            maps.append(x)
        if self.sampler is not None:
            maps.append(self.sampler(x))
        return maps


class UpStage(nn.Module):
    """Pairs at one size on the way up, each with the last of the `skips`, then the doubling where there is
    one; gives the map before the doubling and the one after it.
    """

    def __init__(self, pairs: list[Pair], sampler: Upsample | None) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(pairs)
        self.sampler = sampler

    def forward(
        self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        for pair in self.pairs:
            x = pair(torch.cat([x, skips.pop()], dim=1), time, context, bias)
        return x, x if self.sampler is None else self.sampler(x)


class UNet(nn.Module):
    """Velocity (B, C, H, W) of noisy latents (B, C, H, W) at times (B,) for a context (B, L, width).

    H and W must be multiples of `config.reduction`. `context_mask` (B, L) is 1 for a token and 0 for padding.
    Raises ValueError for latents of another size.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_width = config.channels[0]
        channels, last = config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.time = TimeEmbedding(channels[0], config.time_width)
        self.context = nn.Sequential()
        if config.context_projection is not None:
            self.context.append(nn.Linear(config.context_width, config.context_projection))
            self.context.append(nn.RMSNorm(config.context_projection, eps=1e-5))

        self.down = nn.ModuleList()
        skips = [channels[0]]
        width = channels[0]
        for number, out in enumerate(channels):
            pairs = []
            for _ in range(config.pairs):
                res = None if number == 0 and config.stage1_replace_res else self.res(width, out)
                pairs.append(Pair(res, self.transformer(number)))
                width = out
                skips.append(out)
            sampler = None
            if number < last:
                sampler = Downsample(out, config.separable_samplers)
                skips.append(out)
            self.down.append(DownStage(pairs, sampler))

        self.mid_res1 = self.res(width, width)
        self.mid_transformer = self.transformer(last)
        self.mid_res2 = self.res(width, width) if config.mid_resblocks == 2 else None

        self.up = nn.ModuleList()
        self.feature_stage = 0
        for number in range(last, -1, -1):
            out = channels[number]
            pairs = []
            for _ in range(config.pairs + 1):
                transformer = self.transformer(number) if number or config.up1_transformer else None
                pairs.append(Pair(self.res(width + skips.pop(), out), transformer))
                width = out
            if pairs[-1].transformer is not None:
                self.feature_stage, self.feature_width = number, out
            sampler_up = Upsample(out, config.separable_samplers) if number else None
            self.up.append(UpStage(pairs, sampler_up))

        self.norm_out = nn.GroupNorm(config.groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        if self.conv_out.bias is not None:
            nn.init.zeros_(self.conv_out.bias)

    def res(self, width_in: int, width: int) -> ResBlock:
        config = self.config
        return ResBlock(
            width_in,
            width,
            config.time_width,
            config.separable,
            config.expansion,
            config.groups,
            config.dropout,
        )

    def transformer(self, stage: int) -> SpatialTransformer | None:
        config, width = self.config, self.config.channels[stage]
        layers = [
            TransformerLayer(
                width,
                config.head_dim,
                config.context_projection or config.context_width,
                config.self_attention[stage],
                config.multi_query,
                config.qk_norm,
                config.ffn_ratio,
            )
            for _ in range(config.transformer_layers[stage])
        ]
        if not layers:
            return None
        rope = config.rope and config.self_attention[stage]
        return SpatialTransformer(layers, width, config.head_dim, rope, config.groups)

    def forward(
        self, latents: Tensor, time: Tensor, context: Tensor, context_mask: Tensor | None = None
    ) -> Tensor:
        return self.with_features(latents, time, context, context_mask)[0]

    def with_features(
        self, latents: Tensor, time: Tensor, context: Tensor, context_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, and the output of the last transformer (B, feature_width, H / 2^k, W / 2^k), where k
        is `feature_stage`: 1 by default, 0 with `up1_transformer`.
        """
        if not torch.compiler.is_exporting():
            height, width = latents.shape[-2:]
            if height % self.config.reduction or width % self.config.reduction:
                raise ValueError(
                    f"latents of {height} x {width} must be multiples of {self.config.reduction} on each side"
                )
        bias = None if context_mask is None else ((1 - context_mask) * MASKED)[:, None, None, :]
        embedded = self.time(time)
        context = self.context(context)
        skips = [self.conv_in(latents)]
        for stage in self.down:
            skips += stage(skips[-1], embedded, context, bias)
        x = skips[-1]
        x = self.mid_res1(x, embedded)
        if self.mid_transformer is not None:
            x = self.mid_transformer(x, context, bias)
        if self.mid_res2 is not None:
            x = self.mid_res2(x, embedded)
        features = x
        for number, stage in zip(range(len(self.up) - 1, -1, -1), self.up, strict=True):
            before, x = stage(x, skips, embedded, context, bias)
            if number == self.feature_stage:
                features = before
        return self.conv_out(nn.functional.silu(self.norm_out(x))), features
