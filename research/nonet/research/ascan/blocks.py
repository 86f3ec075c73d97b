"""The two blocks of AsCAN: C, a fused inverted bottleneck, and T, a vanilla transformer block.

Source: arXiv 2411.04967, whose search was narrowed to FusedMBConv and plain attention; the details (expansion
of 4 on the output width, head dimension 32, average pooling on the way down) are reconstructions. Both map
(B, i, H, W) to (B, o, H', W'), where H' is H, or half of it rounded up where the block halves.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4
HEAD_DIM = 32


class DropPath(nn.Module):
    """Drops a sample's residual branch with probability ``rate`` in training, and rescales the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * (x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(keep) / keep)


def halving() -> nn.AvgPool2d:
    """Mean of 2 x 2 places; at an odd edge, of those that there are."""
    return nn.AvgPool2d(2, ceil_mode=True)


class FusedMBConv(nn.Module):
    """C: dense 3x3 convolution that widens, 1x1 convolution that narrows, shortcut.

    Parameters: 9·i·4o + 2·4o + 4o·o + 2o, and i·o where the width changes.
    """

    def __init__(self, width_in: int, width: int, stride: int, rate: float = 0.0) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.expand = nn.Conv2d(width_in, hidden, 3, stride, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.act = nn.GELU()
        self.project = nn.Conv2d(hidden, width, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(width)
        self.drop_path = DropPath(rate)
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut.append(halving())
        if width_in != width:
            self.shortcut.append(nn.Conv2d(width_in, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand_norm(self.expand(x)))  # (B, 4o, H', W')
        y = self.project_norm(self.project(y))  # (B, o, H', W')
        return self.shortcut(x) + self.drop_path(y)


class Attention(nn.Module):
    """Multi-head attention of all N positions to all: (B, N, C) -> (B, N, C); no windows, no position table.

    Raises ValueError for a width that is no multiple of the heads' dimension.
    """

    def __init__(self, width: int, head_dim: int = HEAD_DIM) -> None:
        super().__init__()
        if width % head_dim:
            raise ValueError(f"the width {width} of attention must be a multiple of {head_dim}")
        self.heads, self.head_dim = width // head_dim, head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, width = x.shape
        qkv = self.qkv(x).reshape(batch, places, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B, heads, N, head_dim)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.proj(y.transpose(1, 2).reshape(batch, places, width))


class TransformerBlock(nn.Module):
    """T: attention and a perceptron of ratio 4, each after a layer normalisation and with a shortcut.

    Parameters: 12·o² + 13·o; where it halves, before that i·o + o of a 1x1 convolution.
    """

    def __init__(
        self, width_in: int, width: int, stride: int, rate: float = 0.0, head_dim: int = HEAD_DIM
    ) -> None:
        super().__init__()
        self.down = nn.Sequential()
        if stride == 2:
            self.down.append(halving())
        if stride == 2 or width_in != width:
            self.down.append(nn.Conv2d(width_in, width, 1))
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, head_dim)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width)
        )
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        height, columns = x.shape[-2:]
        y = x.flatten(2).transpose(1, 2)  # (B, N, o)
        y = y + self.drop_path(self.attention(self.norm1(y)))
        y = y + self.drop_path(self.mlp(self.norm2(y)))
        return y.transpose(1, 2).unflatten(2, (height, columns))
