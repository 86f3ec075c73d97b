"""Blocks of SnapGen's UNet: expanded separable residual blocks, transformers with one key and value head.

Maps are (B, C, H, W), tokens (B, N, C), times (B,) from 0 to 1.

Source: arXiv 2412.09619; the order inside a block is that of DreamLite, a later network of the same layout.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_SCALE = 1000.0
"""Times 0..1 are embedded as 0..1000, the range for which the frequencies of the embedding were chosen."""

LONGEST_PERIOD = 10000.0
MASKED = -1e4
"""Added to the score of a padded token: its weight becomes 0, and a text of padding alone makes no NaN."""

Angles = tuple[Tensor, Tensor]


def sinusoid(time: Tensor, width: int) -> Tensor:
    """Embed times (B,) as (B, width): cosines, then sines, of frequencies from 1 down to 1/10000."""
    half = width // 2
    exponent = torch.arange(half, device=time.device, dtype=torch.float32) / half
    angles = TIME_SCALE * time.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """Times (B,) -> (B, hidden): sinusoid and a perceptron."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width = width
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, hidden)

    def forward(self, time: Tensor) -> Tensor:
        embedded = sinusoid(time, self.width).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(embedded)))


class Separable(nn.Sequential):
    """Depthwise 3x3 and pointwise convolution, without bias by default."""

    def __init__(self, width_in: int, width: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width_in, width_in, 3, stride, 1, groups=width_in, bias=False)
        self.pointwise = nn.Conv2d(width_in, width, 1, bias=bias)


class ResBlock(nn.Module):
    """Two normalised convolutions with a shortcut; the time shifts the values between them.

    Separable: the hidden width is `expansion` times `width`; dense: 3x3 convolutions without expansion.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        time_width: int,
        separable: bool = True,
        expansion: int = 2,
        groups: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = expansion * width if separable else width
        self.norm1 = nn.GroupNorm(groups, width_in, eps=1e-5)
        self.time = nn.Linear(time_width, hidden)
        self.norm2 = nn.GroupNorm(groups, hidden, eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        self.conv1: nn.Module
        self.conv2: nn.Module
        if separable:
            self.conv1, self.conv2 = Separable(width_in, hidden), Separable(hidden, width)
        else:
            self.conv1 = nn.Conv2d(width_in, hidden, 3, padding=1)
            self.conv2 = nn.Conv2d(hidden, width, 3, padding=1)
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))  # (B, hidden, H, W)
        y = y + self.time(F.silu(time))[:, :, None, None]
        y = self.conv2(self.dropout(F.silu(self.norm2(y))))
        return self.shortcut(x) + y


def axial_angles(height: int, width: int, head_dim: int, device: torch.device) -> Angles:
    """Cosines and sines (H·W, head_dim/2) of rotary positions: one half of the pairs turns with the row, the
    other with the column.
    """
    quarter = head_dim // 4
    exponent = torch.arange(quarter, device=device, dtype=torch.float32) / quarter
    frequency = torch.exp(-math.log(LONGEST_PERIOD) * exponent)
    rows = torch.arange(height, device=device, dtype=torch.float32)[:, None] * frequency  # (H, head_dim/4)
    columns = torch.arange(width, device=device, dtype=torch.float32)[:, None] * frequency
    angles = torch.cat(
        [
            rows[:, None, :].expand(height, width, quarter),
            columns[None, :, :].expand(height, width, quarter),
        ],
        dim=-1,
    ).reshape(height * width, 2 * quarter)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, angles: Angles) -> Tensor:
    """Turn the pairs (i, i + head_dim/2) of x (B, heads, N, head_dim) by the angles of the N positions."""
    cos, sin = (each.to(x.dtype) for each in angles)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Attention of tokens (B, N, C) to themselves, or to a context (B, L, context_width).

    With `multi_query` all heads share one key and one value. With `qk_norm` queries and keys are
    RMS-normalised per head, before positions turn them.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        context_width: int | None = None,
        multi_query: bool = True,
        qk_norm: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = width // head_dim, head_dim
        self.kv_heads = 1 if multi_query else self.heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context_width or width, self.kv_heads * head_dim, bias=False)
        self.value = nn.Linear(context_width or width, self.kv_heads * head_dim, bias=False)
        self.query_norm = nn.RMSNorm(head_dim, eps=1e-5) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_dim, eps=1e-5) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        angles: Angles | None = None,
    ) -> Tensor:
        """`bias` (B, 1, 1, L) is added to the scores of the context's tokens."""
        source = x if context is None else context
        query = self.query_norm(self.query(x).unflatten(-1, (self.heads, self.head_dim))).transpose(1, 2)
        key = self.key_norm(self.key(source).unflatten(-1, (self.kv_heads, self.head_dim))).transpose(1, 2)
        value = self.value(source).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        if angles is not None:
            query, key = rotated(query, angles), rotated(key, angles)
        if self.kv_heads == 1:  # one key and value: the heads are further queries of the same attention
            y = F.scaled_dot_product_attention(query.flatten(1, 2)[:, None], key, value, attn_mask=bias)
            y = y[:, 0].unflatten(1, (self.heads, -1))
        else:
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Gated perceptron (GEGLU): (B, N, C) -> (B, N, C) by way of `ratio` widths."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * ratio * width)
        self.project = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.project(value * F.gelu(gate))


class TransformerLayer(nn.Module):
    """Self-attention where asked for, attention to the text, feed-forward; each normalised, with shortcut.

    Without a `context_width` there is no attention to a text, and the context is ignored.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        context_width: int | None,
        self_attention: bool,
        multi_query: bool = True,
        qk_norm: bool = True,
        ffn_ratio: int = 3,
    ) -> None:
        super().__init__()
        self.self_attention: Attention | None = None
        if self_attention:
            self.self_norm = nn.LayerNorm(width)
            self.self_attention = Attention(width, head_dim, None, multi_query, qk_norm)
        self.cross_attention: Attention | None = None
        if context_width is not None:
            self.cross_norm = nn.LayerNorm(width)
            self.cross_attention = Attention(width, head_dim, context_width, multi_query, qk_norm)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, ffn_ratio)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        angles: Angles | None = None,
    ) -> Tensor:
        if self.self_attention is not None:
            x = x + self.self_attention(self.self_norm(x), angles=angles)
        if self.cross_attention is not None:
            x = x + self.cross_attention(self.cross_norm(x), context, bias)
        return x + self.ffn(self.ffn_norm(x))


class SpatialTransformer(nn.Module):
    """Transformer layers over the places of a map (B, C, H, W), between linear layers, with a shortcut."""

    def __init__(
        self, layers: list[TransformerLayer], width: int, head_dim: int, rope: bool, groups: int
    ) -> None:
        super().__init__()
        self.head_dim, self.rope = head_dim, rope
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.linear_in = nn.Linear(width, width)
        self.layers = nn.ModuleList(layers)
        self.linear_out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        angles = axial_angles(height, width, self.head_dim, x.device) if self.rope else None
        y = self.linear_in(self.norm(x).flatten(2).transpose(1, 2))  # (B, N, C)
        for layer in self.layers:
            y = layer(y, context, bias, angles)
        return x + self.linear_out(y).transpose(1, 2).unflatten(2, (height, width))


class Downsample(nn.Module):
    """Half the size by a strided convolution: (B, C, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, width: int, separable: bool = False) -> None:
        super().__init__()
        self.conv = Separable(width, width, 2) if separable else nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the size: each value four times, then a convolution."""

    def __init__(self, width: int, separable: bool = False) -> None:
        super().__init__()
        self.conv = Separable(width, width) if separable else nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
