"""Configurations of SnapGen's UNet: the published ones and small ones for small latents.

Source: arXiv 2412.09619 (channels, blocks, the ablation) and the layout of the later DreamLite, which has the
same widths; what neither states is a knob here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UNetConfig:
    """A UNet of `len(channels)` stages, each half the size of the one before.

    By stage, from the full size down: `channels`, `transformer_layers` (0: residual blocks alone),
    `self_attention`. A stage has `pairs` of residual block and transformer on the way down, one more on the
    way up; `mid_resblocks` are 1 or 2 around the middle transformer; `up1_transformer`: transformers also in
    the last stage of the way up; `stage1_replace_res`: the transformers of stage 1 stand on the way down
    in the place of its residual blocks.

    Residual blocks: `separable`, depthwise and pointwise convolutions with a hidden width of `expansion`
    widths, or dense; `separable_samplers`: separable also where the size changes; `groups`: of group
    normalisation.

    Transformers: `context_width` of a text token, `context_projection` projects the text to that width first
    and RMS-normalises it; `head_dim` of an attention head, `multi_query`: all heads share one key and one
    value; `ffn_ratio`: hidden width of a feed-forward, in widths; `qk_norm`: RMS normalisation of queries and
    keys; `rope`: rotary positions in self-attention.

    Raises ValueError where these do not fit together.
    """

    latent_channels: int = 16
    channels: tuple[int, ...] = (256, 512, 896)
    transformer_layers: tuple[int, ...] = (1, 2, 4)
    self_attention: tuple[bool, ...] = (False, False, True)
    context_width: int = 2304
    head_dim: int = 64
    multi_query: bool = True
    ffn_ratio: int = 3
    separable: bool = True
    separable_samplers: bool = False
    expansion: int = 2
    qk_norm: bool = True
    rope: bool = True
    pairs: int = 2
    mid_resblocks: int = 2
    up1_transformer: bool = False
    stage1_replace_res: bool = False
    context_projection: int | None = None
    groups: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        stages = len(self.channels)
        if not stages or {len(self.transformer_layers), len(self.self_attention)} != {stages}:
            raise ValueError("channels, transformer_layers and self_attention must have one value per stage")
        for width, layers in zip(self.channels, self.transformer_layers, strict=True):
            if width % self.groups:
                raise ValueError(f"{width} channels do not divide into {self.groups} groups")
            if layers and width % self.head_dim:
                raise ValueError(f"{width} channels do not divide into heads of {self.head_dim}")
        if self.head_dim % 4:
            raise ValueError(
                f"rotary positions of two axes need heads of a multiple of 4, not {self.head_dim}"
            )
        if self.stage1_replace_res and not self.transformer_layers[0]:
            raise ValueError(
                "stage 1 has no transformers that could stand in the place of its residual blocks"
            )
        if self.mid_resblocks not in (1, 2):
            raise ValueError(f"the middle has 1 or 2 residual blocks, not {self.mid_resblocks}")
        if self.expansion != 1 and not self.separable:
            raise ValueError("only separable residual blocks expand")

    @property
    def reduction(self) -> int:
        """What the sides of latents must be a multiple of."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def time_width(self) -> int:
        return 4 * self.channels[0]


TEXT_TO_IMAGE = UNetConfig()
"""The 379 M network: 16-channel latents, text of width 2304."""

IMAGENET = UNetConfig(context_width=768)
"""The 372 M network: a class is the sentence of its name, read by a text encoder of width 768."""

SMALL = UNetConfig(
    latent_channels=32,
    channels=(64, 96, 128),
    transformer_layers=(1, 1, 2),
    self_attention=(False, True, True),
    context_width=384,
    head_dim=32,
)
"""6.7 M, for 8 x 8 or 16 x 16 latents of 32 channels and text of width 384."""

MEDIUM = UNetConfig(
    latent_channels=32,
    channels=(96, 128, 160),
    transformer_layers=(1, 1, 2),
    self_attention=(False, True, True),
    context_width=384,
    head_dim=32,
)
"""11.0 M, for the same latents and text."""

CONFIGS = {"text_to_image": TEXT_TO_IMAGE, "imagenet": IMAGENET, "small": SMALL, "medium": MEDIUM}
