"""The matcher: regions and tokens in, a share of probability for each region and for none of them out.

Regions attend to the tokens of the expression, then to each other with a bias that depends on how two regions
lie to one another and on what the text asks for ("left of", "next to", "bigger"), as A. Vaswani et al. (arXiv
1706.03762) with the geometric attention of H. Hu et al. ("Relation Networks", arXiv 1711.11575) made
conditional on text. Order among things of one name ("second from the left") is counted before, since soft
attention averages where counting is needed. Every matrix product runs over regions or tokens, never over
whole examples, and sums over tokens are products too: otherwise the runtime would block sums by the size of
the batch, and an answer depend on what is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.runtime.images.regions import LOOKS

__all__ = ["Matcher", "ServingForm", "Shape"]

_TEXT = 384  # width of a token's state and of a name's
_FAR = -1e4  # a logit that is no choice
_PAIR = 12
_ORDER = 7 * 2 * 4


@dataclass(frozen=True)
class Shape:
    """Widths: of a state, of the heads of attention, of the pair's features; how many layers."""

    width: int = 96
    heads: int = 6
    pair: int = 12
    layers: int = 2


class Attention(nn.Module):
    """Attention of queries (B, Q, D) to keys (B, K, D) with a bias (B, H, Q, K) or (B, 1, 1, K)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        def split(states: Tensor) -> Tensor:
            return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N, D / H)

        q, k, v = split(self.query(queries)), split(self.key(keys)), split(self.value(keys))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Tokens, then relations, then a perceptron, each with a residual path."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.read = Attention(width, shape.heads)
        self.relate = Attention(width, shape.heads)
        self.asked = nn.Linear(width, shape.pair * shape.heads)
        self.think = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.shape = shape

    def forward(
        self,
        regions: Tensor,
        tokens: Tensor,
        token_weights: Tensor,
        pair: Tensor,
        masks: tuple[Tensor, Tensor],
    ) -> Tensor:
        region_bias, token_bias = masks
        regions = regions + self.read(self.norms[0](regions), tokens, token_bias)
        # What the text asks of two regions: a mixture of the pair's features for each head.
        asked = token_weights @ self.asked(tokens)  # (B, 1, pair * heads)
        mixture = asked.reshape(-1, self.shape.pair, self.shape.heads)
        bias = (pair.flatten(1, 2) @ mixture).unflatten(1, pair.shape[1:3]).permute(0, 3, 1, 2)
        normed = self.norms[1](regions)
        regions = regions + self.relate(normed, normed, bias + region_bias)
        return regions + self.think(self.norms[2](regions))


class Matcher(nn.Module):
    """Logits (B, R + 1) of the regions and, last, of none of them."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape or Shape()
        width = self.shape.width
        self.name = nn.Linear(_TEXT, width)
        self.look = nn.Linear(LOOKS, width)
        self.place = nn.Sequential(nn.Linear(14 + _ORDER, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.region_norm = nn.LayerNorm(width)
        self.token = nn.Linear(_TEXT, width)
        self.token_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.token_attention = Attention(width, self.shape.heads)
        self.token_think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.pair = nn.Sequential(nn.Linear(_PAIR, 24), nn.ReLU(), nn.Linear(24, self.shape.pair))
        self.layers = nn.ModuleList(Layer(self.shape) for _ in range(self.shape.layers))
        self.out_norm = nn.LayerNorm(width)
        self.choice = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.none_of = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.none_text = nn.Linear(width, 1)
        self.trust = nn.Parameter(torch.tensor([4.0, -0.6]))

    def forward(
        self,
        boxes: Tensor,  # (B, R, 4)
        region_mask: Tensor,  # (B, R)
        region_scores: Tensor,  # (B, R)
        region_names: Tensor,  # (B, R, 384)
        region_looks: Tensor,  # (B, R, LOOKS)
        aspect: Tensor,  # (B,)
        tokens: Tensor,  # (B, L, 384)
        token_mask: Tensor,  # (B, L)
    ) -> Tensor:
        region_bias = ((1 - region_mask) * _FAR)[:, None, None]
        token_bias = ((1 - token_mask) * _FAR)[:, None, None]
        token_weights = (token_mask / token_mask.sum(1, keepdim=True).clamp(min=1.0))[:, None]  # (B, 1, L)
        words = self._read(tokens, token_bias)
        alike = (region_names @ region_names.transpose(1, 2) - 0.6).clamp(min=0.0) / 0.4  # 1: the same name
        trust = torch.sigmoid(self.trust[0] * (region_scores + self.trust[1])) * region_mask
        pair = pair_features(boxes, aspect, alike, trust)
        order = order_features(boxes, alike, trust)
        place = torch.cat((place_features(boxes, aspect, region_scores), order), -1)
        regions = self.name(region_names) + self.look(region_looks) + self.place(place)
        regions = self.region_norm(regions)
        paired = self.pair(pair)  # (B, R, R, pair)
        for layer in self.layers:
            regions = layer(regions, words, token_weights, paired, (region_bias, token_bias))
        regions = self.out_norm(regions)
        chosen = self.choice(regions)[..., 0] * region_mask + (1 - region_mask) * _FAR
        counted = (region_mask / region_mask.sum(1, keepdim=True).clamp(min=1.0))[:, None]  # (B, 1, R)
        seen = counted @ self.none_of(regions) + token_weights @ self.none_text(words)  # (B, 1, 1)
        return torch.cat((chosen, seen[:, 0]), 1)

    def _read(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """(B, L, D): the tokens after a layer of attention among them."""
        words = self.token_norms[0](self.token(tokens))
        normed = self.token_norms[1](words)
        words = words + self.token_attention(normed, normed, bias)
        return words + self.token_think(self.token_norms[2](words))


class ServingForm(nn.Module):
    """The matcher as it is served: (shares (B, R) of the regions, share (B,) of none), which sum to 1."""

    def __init__(self, matcher: Matcher, temperature: float = 1.0) -> None:
        super().__init__()
        self.matcher, self.temperature = matcher, temperature

    def forward(
        self,
        boxes: Tensor,
        region_mask: Tensor,
        region_scores: Tensor,
        region_names: Tensor,
        region_looks: Tensor,
        aspect: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        logits = self.matcher(
            boxes, region_mask, region_scores, region_names, region_looks, aspect, tokens, token_mask
        )
        shares = functional.softmax(logits / self.temperature, dim=-1)
        return shares[:, :-1] * region_mask, shares[:, -1]


def place_features(boxes: Tensor, aspect: Tensor, scores: Tensor) -> Tensor:
    """(B, R, 14): corners, centre, sides, logarithms of area and of the sides' ratio, nearness to the middle,
    the picture's shape, the detector's score.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, size = (low + high) / 2, (high - low).clamp(min=1e-3)
    wide = aspect.clamp(0.1, 10.0)[:, None].expand(scores.shape).log()
    area = size.prod(-1).log() / 4
    ratio = (size[..., 0] / size[..., 1]).log() + wide
    middle = (centre - 0.5).square().sum(-1).sqrt()
    rest = torch.stack((area, ratio, middle, wide, scores, scores.clamp(1e-3, 1 - 1e-3).logit() / 4), -1)
    return torch.cat((low, high, centre - 0.5, size, rest), -1)


def pair_features(boxes: Tensor, aspect: Tensor, alike: Tensor, trust: Tensor) -> Tensor:
    """(B, R, R, 12) of region i (first) to region j: where j lies, how large it is, how much they overlap,
    how far apart they are, whether they share a name, how far j is to be trusted.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, size = (low + high) / 2, (high - low).clamp(min=1e-3)
    shift = centre[:, None] - centre[:, :, None]  # (B, R, R, 2)
    ratio = (size[:, None].log() - size[:, :, None].log()).clamp(-4.0, 4.0) / 2
    both = (
        torch.minimum(high[:, None], high[:, :, None]) - torch.maximum(low[:, None], low[:, :, None])
    ).clamp(min=0.0)
    shared = both.prod(-1)
    area = size.prod(-1)
    inside = shared / area[:, :, None]
    holds = shared / area[:, None]
    gap = (
        torch.maximum(low[:, None], low[:, :, None]) - torch.minimum(high[:, None], high[:, :, None])
    ).clamp(min=0.0)
    wide = torch.stack((aspect.clamp(0.1, 10.0), torch.ones_like(aspect)), -1)[:, None, None]
    apart = ((gap * wide).square().sum(-1) + 1e-6).sqrt()
    near = torch.exp(-apart / 0.1)
    features = (
        *(shift[..., 0], shift[..., 1], torch.tanh(shift[..., 0] * 8), torch.tanh(shift[..., 1] * 8)),
        *(
            ratio[..., 0],
            ratio[..., 1],
            inside,
            holds,
            near,
            apart,
            alike,
            trust[:, None].expand(alike.shape),
        ),
    )
    return torch.stack(features, -1)


def order_features(boxes: Tensor, alike: Tensor, trust: Tensor) -> Tensor:
    """(B, R, 56): how many lie to the left, right, above and below, how many are larger and smaller, and how
    many there are, among those of the same name and among all; each count as a logarithm and as nearness to
    0, 1 and 2. A region that lies where this one does is not another.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, size = (low + high) / 2, (high - low).clamp(min=1e-3)
    area = size.prod(-1).log()
    both = (
        torch.minimum(high[:, None], high[:, :, None]) - torch.maximum(low[:, None], low[:, :, None])
    ).clamp(min=0.0)
    shared = both.prod(-1)
    areas = size.prod(-1)
    union = areas[:, None] + areas[:, :, None] - shared
    other = (1 - shared / union.clamp(min=1e-6)).clamp(0.0, 1.0)
    x = torch.sigmoid((centre[:, :, None, 0] - centre[:, None, :, 0]) / 0.015)  # 1: j is to the left of i
    y = torch.sigmoid((centre[:, :, None, 1] - centre[:, None, :, 1]) / 0.015)
    larger = torch.sigmoid((area[:, None] - area[:, :, None]) / 0.1)
    ways = torch.stack((x, 1 - x, y, 1 - y, larger, 1 - larger, torch.ones_like(x)), -1)  # (B, R, R, 7)
    counts = []
    for weight in (alike * trust[:, None] * other, trust[:, None] * other):
        counts.append((ways * weight[..., None]).sum(2))
    count = torch.cat(counts, -1).clamp(min=0.0)  # (B, R, 14)
    near = [torch.exp(-2 * (count - number).square()) for number in (0.0, 1.0, 2.0)]
    return torch.cat((torch.log1p(count), *near), -1)
