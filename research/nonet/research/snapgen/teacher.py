"""The teacher: a diffusion transformer, another family of network than the student that learns from it.

Patches of the latents attend to each other and to the caption's tokens in one softmax; time and the caption's
mean state modulate every block (adaptive layer normalisation that begins as the identity). Design follows
DiT (arXiv 2212.09748); queries and keys are normalised, feed-forwards use squared ReLU: cheap on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TeacherConfig:
    """A transformer of `layers` blocks of `width`, with heads of `head_dim`, on patches of `patch` x `patch`
    cells of latents with `latent_channels`, for text states of `context_width`. `ffn_ratio`: hidden width of
    a feed-forward, in widths. Raises ValueError where heads do not divide the width.
    """

    latent_channels: int = 32
    context_width: int = 384
    width: int = 256
    layers: int = 8
    head_dim: int = 64
    patch: int = 2
    ffn_ratio: int = 4

    def __post_init__(self) -> None:
        if self.width % self.head_dim or self.head_dim % 4:
            raise ValueError(f"heads of {self.head_dim}, a multiple of 4, must divide the width {self.width}")


def sinusoid(positions: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Cosines and sines (..., width) of positions (...) at geometric frequencies, as of transformers."""
    half = width // 2
    rates = torch.exp(-math.log(longest) * torch.arange(half, device=positions.device) / half)
    angles = positions[..., None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Block(nn.Module):
    """Attention over patches and text, then a feed-forward; both modulated by a vector per sample."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        width = config.width
        self.head_dim = config.head_dim
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.text_kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, config.ffn_ratio * width)
        self.down = nn.Linear(config.ffn_ratio * width, width)
        self.q_scale = nn.Parameter(torch.ones(config.head_dim))
        self.k_scale = nn.Parameter(torch.ones(config.head_dim))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, text: Tensor, bias: Tensor, condition: Tensor) -> Tensor:
        """`x` (B, N, d), `text` (B, L, d), `bias` (B, 1, 1, N + L) added to scores, `condition` (B, d)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        width = x.shape[-1]
        normal = F.layer_norm(x, (width,)) * (1 + scale1) + shift1
        q, k, v = self._heads(self.qkv(normal), 3)
        text_k, text_v = self._heads(self.text_kv(text), 2)
        keys = F.rms_norm(torch.cat([k, text_k], dim=2), (self.head_dim,)) * self.k_scale
        queries = F.rms_norm(q, (self.head_dim,)) * self.q_scale
        mixed = F.scaled_dot_product_attention(queries, keys, torch.cat([v, text_v], dim=2), attn_mask=bias)
        x = x + gate1 * self.out(mixed.transpose(1, 2).flatten(2))
        normal = F.layer_norm(x, (width,)) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.relu(self.up(normal)).square())

    def _heads(self, x: Tensor, parts: int) -> list[Tensor]:
        """(B, N, parts·d) -> `parts` tensors (B, heads, N, head_dim)."""
        return [part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in x.chunk(parts, dim=-1)]


class Teacher(nn.Module):
    """Latents (B, C, h, w), times (B,), context (B, L, 384) and its mask (B, L) -> velocity (B, C, h, w).

    `h` and `w` are multiples of the patch.
    """

    def __init__(self, config: TeacherConfig = TeacherConfig()) -> None:
        super().__init__()
        self.config = config
        width, cells = config.width, config.latent_channels * config.patch**2
        self.embed = nn.Linear(cells, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Sequential(nn.LayerNorm(config.context_width), nn.Linear(config.context_width, width))
        self.pooled = nn.Sequential(
            nn.LayerNorm(config.context_width),
            nn.Linear(config.context_width, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, cells)
        for layer in (self.last_modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def features(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The last block's output (B, h/p, w/p, d), and the vector (B, d) that modulates."""
        maps, condition = self.all_features(latents, time, context, mask)
        return maps[-1], condition

    def all_features(
        self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Every block's output (B, h/p, w/p, d), and the vector (B, d) that modulates."""
        patch = self.config.patch
        x = latents.unflatten(2, (-1, patch)).unflatten(4, (-1, patch)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        x = self.embed(x)
        width = x.shape[-1]
        rows = sinusoid(_centred(x.shape[1], x), width // 2, 100.0)
        columns = sinusoid(_centred(x.shape[2], x), width // 2, 100.0)
        place = torch.cat(
            [rows[:, None].expand(-1, x.shape[2], -1), columns[None].expand(x.shape[1], -1, -1)], dim=-1
        )
        height = x.shape[1]
        x = (x + place).flatten(1, 2)
        pooled = (context * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        condition = F.silu(self.time(sinusoid(1000 * time, width)) + self.pooled(pooled))
        text = self.text(context)
        bias = torch.cat([mask.new_zeros(x.shape[0], x.shape[1]), (mask - 1) * 1e4], dim=1)[:, None, None]
        maps = []
        for block in self.blocks:
            x = block(x, text, bias, condition)
            maps.append(x.unflatten(1, (height, -1)))
        return maps, condition

    def velocity(self, features: Tensor, condition: Tensor) -> Tensor:
        """Velocity (B, C, h, w) of what `features` returned."""
        patch = self.config.patch
        shift, scale = self.last_modulation(condition)[:, None, None].chunk(2, dim=-1)
        x = self.head(F.layer_norm(features, features.shape[-1:]) * (1 + scale) + shift)
        x = x.unflatten(3, (self.config.latent_channels, patch, patch))
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    def forward(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        return self.velocity(*self.features(latents, time, context, mask))


def _centred(count: int, like: Tensor) -> Tensor:
    """Places (count,) around 0, so that a larger picture extends a smaller one on all sides."""
    places = torch.arange(count, device=like.device, dtype=torch.float32)
    return places - places.mean()
