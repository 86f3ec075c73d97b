"""The network: from a packed RGGB mosaic to the posterior's parameters at full resolution.

    packed mosaic (N, 4, h, w) -> body at half resolution -> features (N, C, h, w)
      -> 12 planes -> pixel shuffle -> image (N, 3, 2h, 2w), refined once at full resolution
      -> 36 planes -> pixel shuffle -> log lambda, log alpha, log beta (N, 9, 2h, 2w)
      -> 12 planes -> pixel shuffle -> log error scale (N, 3, 2h, 2w)

Bodies: `grouped_dense` (the paper's kind), `residual` (plain residual blocks, for CPU training) and
    `gated_chain` (the
layout of Gharbi et al., SIGGRAPH Asia 2016, so that its published weights can be a starting point).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonet.research.wild_jdd.bayer import packed_bilinear_kernels
from nonet.research.wild_jdd.degradation import PriorConfig, initial_logs
from nonet.research.wild_jdd.elbo import Posterior
from nonet.research.wild_jdd.grouped_dense import GroupedDenseBody


class Body(StrEnum):
    GROUPED_DENSE = "grouped_dense"
    RESIDUAL = "residual"
    GATED_CHAIN = "gated_chain"


@dataclass(frozen=True)
class NetworkConfig:
    """Size and shape of a network.

    Attributes:
        body: kind of feature extractor.
        width: features C.
        depth: residual blocks, convolutions of the chain, or GRDBs.
        dense_blocks, dense_layers, growth: inside a GRDB (grouped_dense only).
        skip: add the bilinear interpolation, so that the body predicts a correction.
        refine: width of the single full-resolution layer that sees the mosaic again; 0 leaves it out.
        error_scale: width of the branch that predicts the calibrated error scale; 0 leaves it out.
    """

    body: Body = Body.RESIDUAL
    width: int = 32
    depth: int = 6
    dense_blocks: int = 4
    dense_layers: int = 8
    growth: int = 32
    skip: bool = True
    refine: int = 0
    error_scale: int = 32

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.dense_blocks, self.dense_layers, self.growth) < 1:
            raise ValueError("width, depth and the dense sizes must be positive")
        if self.refine < 0 or self.error_scale < 0:
            raise ValueError("refine and error_scale must not be negative")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NetworkConfig:
        return replace(cls(), **{**values, "body": Body(values["body"])})


NETWORKS: dict[str, NetworkConfig] = {
    "full": NetworkConfig(Body.GROUPED_DENSE, width=64, depth=4, growth=64, error_scale=64),
    "small": NetworkConfig(Body.RESIDUAL, width=32, depth=6),
    "medium": NetworkConfig(Body.RESIDUAL, width=64, depth=7, refine=64),
    "chain": NetworkConfig(Body.GATED_CHAIN, width=64, depth=15, skip=False, refine=64),
    "tiny": NetworkConfig(Body.RESIDUAL, width=8, depth=1, error_scale=8),
}


def _residual_block(width: int) -> nn.Sequential:
    last = nn.Conv2d(width, width, 3, padding=1)
    # Start near the identity, or the skips of all blocks add up at initialisation.
    nn.init.normal_(last.weight, std=0.1 / math.sqrt(9 * width))
    nn.init.constant_(_bias(last), 0.0)
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), last)


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("this convolution was made without a bias")
    return conv.bias


class ResidualBody(nn.Module):
    """3x3 head to C features, `depth` blocks conv-ReLU-conv with skip. (N, 4, h, w) -> (N, C, h, w)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, width, 3, padding=1)
        self.blocks = nn.ModuleList(_residual_block(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.blocks:
            x = x + block(x)
        return x


class GatedChainBody(nn.Module):
    """1x1 mix, `depth` 3x3 convolutions with ReLU, the last split in two halves that multiply."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)
        sizes = [4] + [width] * (depth - 1) + [2 * width]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        for conv in self.convs:
            x = torch.relu(conv(x))
        values, gates = x.chunk(2, dim=1)
        return values * gates


class WildJdd(nn.Module):
    """Packed RGGB mosaic (N, 4, h, w), values about [0, 1] -> `Posterior` of maps (N, 3, 2h, 2w).

    h and w must be even for the grouped dense body. Values within `halo` pixels of a border see zero padding
    instead of picture; callers mirror-pad the mosaic and cut that away.
    """

    bilinear_kernels: Tensor
    scatter_kernels: Tensor

    def __init__(self, config: NetworkConfig, prior: PriorConfig | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.width
        if config.body is Body.GROUPED_DENSE:
            self.body: nn.Module = nn.Sequential(
                nn.Conv2d(4, width, 3, padding=1),
                GroupedDenseBody(
                    width,
                    groups=config.depth,
                    blocks=config.dense_blocks,
                    layers=config.dense_layers,
                    growth=config.growth,
                ),
            )
        elif config.body is Body.RESIDUAL:
            self.body = ResidualBody(width, config.depth)
        else:
            self.body = GatedChainBody(width, config.depth)
        self.to_image = nn.Conv2d(width, 12, 1)
        self.to_logs = nn.Conv2d(width, 36, 1)
        if config.refine:
            output = nn.Conv2d(config.refine, 3, 1)
            if config.skip:  # begin with no correction
                nn.init.constant_(output.weight, 0.0)
                nn.init.constant_(_bias(output), 0.0)
            self.refine = nn.Sequential(
                nn.Conv2d(6, config.refine, 3, padding=1), nn.ReLU(inplace=True), output
            )
        if config.error_scale:
            output = nn.Conv2d(config.error_scale, 12, 1)
            nn.init.normal_(output.weight, std=1e-3)
            nn.init.constant_(_bias(output), math.log(4 / 255))
            self.to_scale = nn.Sequential(
                nn.Conv2d(width, config.error_scale, 3, padding=1), nn.ReLU(inplace=True), output
            )
        if config.skip:
            self.register_buffer("bilinear_kernels", packed_bilinear_kernels(), persistent=False)
        if config.refine:
            self.register_buffer("scatter_kernels", scatter_kernels(), persistent=False)
        self._start_outputs(prior or PriorConfig())

    def _start_outputs(self, prior: PriorConfig) -> None:
        """Untrained outputs: a small correction of the image, and the prior's own parameters."""
        nn.init.normal_(self.to_image.weight, std=1e-3)
        nn.init.constant_(_bias(self.to_image), 0.0)
        nn.init.normal_(self.to_logs.weight, std=1e-3)
        with torch.no_grad():
            for which, start in enumerate(initial_logs(prior)):
                _bias(self.to_logs)[12 * which : 12 * which + 12] = start

    @property
    def halo(self) -> int:
        """Receptive radius in full-resolution pixels, rounded up to a multiple of 4."""
        if self.config.body is Body.GATED_CHAIN:
            half = self.config.depth
        elif self.config.body is Body.RESIDUAL:
            half = 1 + 2 * self.config.depth
        else:
            half = 4 + 2 * self.config.depth * self.config.dense_blocks * self.config.dense_layers
        reach = 2 * (half + (1 if self.config.error_scale else 0)) + (1 if self.config.refine else 0)
        return -(-reach // 4) * 4

    def forward(self, packed: Tensor, *, logs_move_features: bool = True) -> Posterior:
        """The posterior; without `logs_move_features` no loss of the logs reaches what makes the image."""
        features = self.body(packed)
        planes = self.to_image(features)
        seen = features if logs_move_features else features.detach()
        logs = F.pixel_shuffle(self.to_logs(seen).float(), 2)
        with torch.autocast(packed.device.type, enabled=False):  # the image itself needs full precision
            mean = F.pixel_shuffle(planes.float(), 2)
            if self.config.refine:
                readings = F.pixel_shuffle(F.conv2d(packed.float(), self.scatter_kernels), 2)
                refined = self.refine(torch.cat([readings, mean], dim=1))
                mean = mean + refined if self.config.skip else refined
            if self.config.skip:
                mean = mean + F.pixel_shuffle(F.conv2d(packed.float(), self.bilinear_kernels, padding=1), 2)
        log_std = None
        if self.config.error_scale:
            # Detached: the scale describes the errors and must not shape the features that make them.
            log_std = F.pixel_shuffle(self.to_scale(features.detach()).float(), 2)
        return Posterior(mean, logs[:, 0:3], logs[:, 3:6], logs[:, 6:9], log_std)

    def parameters_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def scatter_kernels() -> Tensor:
    """1x1 kernels (12, 4, 1, 1) that, followed by pixel shuffle, put each reading at its own colour and
    place and zero elsewhere."""
    kernels = torch.zeros(12, 4, 1, 1)
    for place, plane in ((0, 0), (5, 1), (6, 2), (11, 3)):
        kernels[place, plane] = 1.0
    return kernels


def channels_last(network: WildJdd) -> WildJdd:
    """The network with its weights laid out channels last, in place: the faster layout on CPUs."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
