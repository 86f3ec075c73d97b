"""FasterNet: stacks of partial convolution and 1x1 convolutions with a shortcut.

Source: J. Chen, S. Kao, H. He, W. Zhuo, S. Wen, C.-H. Lee, S.-H. G. Chan, "Run, Don't Walk: Chasing Higher
FLOPS for Faster Neural Networks", CVPR 2023, arXiv 2303.03667v3. Tensor names are those of the authors'
released checkpoints. Input: RGB, ImageNet mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PConvForm = Literal["split_cat", "slicing"]
Shortcut = Literal["input", "after_pconv"]


@dataclass(frozen=True)
class Variant:
    """Shape of one FasterNet; the widths of the four stages are embed_dim x 1, 2, 4, 8."""

    embed_dim: int
    depths: tuple[int, ...]
    activation: Literal["gelu", "relu"]
    drop_path: float  # rate of the last block in the ImageNet recipe; the others rise to it linearly
    feature_dim: int = 1280
    mlp_ratio: float = 2.0
    n_div: int = 4  # the partial convolution touches 1/n_div of the channels
    layer_scale: float = 0.0  # 0 switches the scale off, as in every released network

    def __post_init__(self) -> None:
        if self.embed_dim < self.n_div or not self.depths or min(self.depths) < 1:
            raise ValueError("embed_dim must be at least n_div and every stage needs a block")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError("drop_path must lie in [0, 1)")

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self.embed_dim * 2 ** (len(self.depths) - 1)


#: The six published variants, and `nano`, a narrower ladder step of ours for small data sets.
VARIANTS: dict[str, Variant] = {
    "t0": Variant(40, (1, 2, 8, 2), "gelu", 0.0),
    "t1": Variant(64, (1, 2, 8, 2), "gelu", 0.02),
    "t2": Variant(96, (1, 2, 8, 2), "relu", 0.05),
    "s": Variant(128, (1, 2, 13, 2), "relu", 0.1),
    "m": Variant(144, (3, 4, 18, 3), "relu", 0.2),
    "l": Variant(192, (3, 4, 18, 3), "relu", 0.3),
    "nano": Variant(24, (1, 2, 4, 1), "gelu", 0.0, feature_dim=640),
}
PUBLISHED = ("t0", "t1", "t2", "s", "m", "l")


class PartialConv(nn.Module):
    """3x3 convolution, stride 1, of the first `dim // n_div` channels; the others pass through untouched.

    Two forms compute the same numbers. `split_cat` splits, convolves and concatenates; it trains. `slicing`
    clones the input and writes the convolved channels into the clone; autograd cannot follow a slice that is
    read and written, so calling it in training mode raises RuntimeError. Neither changes its input.
    """

    def __init__(self, dim: int, n_div: int = 4, form: PConvForm = "split_cat") -> None:
        super().__init__()
        if form not in ("split_cat", "slicing"):
            raise ValueError(f"unknown PConv form {form!r}: use 'split_cat' or 'slicing'")
        self.touched = dim // n_div
        self.untouched = dim - self.touched
        self.form = form
        self.partial_conv3 = nn.Conv2d(self.touched, self.touched, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "split_cat":
            first, rest = torch.split(x, [self.touched, self.untouched], dim=1)
            return torch.cat((self.partial_conv3(first), rest), dim=1)
        if self.training:
            raise RuntimeError(
                "the slicing form of PConv is for inference only: "
                "build the network with pconv='split_cat' to train"
            )
        y = x.clone()
        y[:, : self.touched] = self.partial_conv3(y[:, : self.touched])
        return y


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample with probability `rate` while training, and rescales the
    others.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * (mask / keep)


class Block(nn.Module):
    """y = shortcut + drop_path(scale * mlp(pconv(x))), at constant shape (B, dim, H, W).

    `shortcut="after_pconv"` adds pconv(x) in place of x: that is what the un-cloned in-place form of the
    first published timing code computes. It is another network, kept by name for comparison, never for
    released weights.
    """

    def __init__(self, dim: int, variant: Variant, rate: float, pconv: PConvForm, shortcut: Shortcut) -> None:
        super().__init__()
        if shortcut not in ("input", "after_pconv"):
            raise ValueError(f"unknown shortcut {shortcut!r}: use 'input' or 'after_pconv'")
        hidden = int(dim * variant.mlp_ratio)
        self.spatial_mixing = PartialConv(dim, variant.n_div, pconv)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            activation(variant),
            nn.Conv2d(hidden, dim, 1, bias=False),
        )
        self.drop_path = DropPath(rate) if rate > 0 else nn.Identity()
        self.shortcut = shortcut
        if variant.layer_scale > 0:
            self.layer_scale = nn.Parameter(torch.full((dim,), variant.layer_scale))
        self.scaled = variant.layer_scale > 0

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.spatial_mixing(x)
        y = self.mlp(mixed)
        if self.scaled:
            y = y * self.layer_scale[:, None, None]
        return (x if self.shortcut == "input" else mixed) + self.drop_path(y)


class PatchEmbed(nn.Module):
    """(B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 4, stride=4, bias=False)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class PatchMerging(nn.Module):
    """(B, dim, H, W) -> (B, 2 dim, H/2, W/2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))


class Stage(nn.Module):
    """A run of blocks at one width."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def activation(variant: Variant) -> nn.Module:
    """The exact (erf) GELU or an in-place ReLU, shared by the blocks and the head."""
    return nn.GELU() if variant.activation == "gelu" else nn.ReLU(inplace=True)


class Backbone(nn.Module):
    """Patch embedding, stages and merging layers: the part that classifier and dense form share."""

    def __init__(self, variant: Variant, drop_path: float, pconv: PConvForm, shortcut: Shortcut) -> None:
        super().__init__()
        count = sum(variant.depths)
        rates = [drop_path * index / max(1, count - 1) for index in range(count)]
        self.patch_embed = PatchEmbed(variant.embed_dim)
        parts: list[nn.Module] = []
        taken = 0
        for index, depth in enumerate(variant.depths):
            dim = variant.embed_dim * 2**index
            if index:
                parts.append(PatchMerging(dim // 2))
            blocks = [Block(dim, variant, rate, pconv, shortcut) for rate in rates[taken : taken + depth]]
            parts.append(Stage(blocks))
            taken += depth
        self.stages = nn.Sequential(*parts)

    def initialise(self) -> None:
        """Truncated normal weights (sigma 0.02) for every convolution and linear layer, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class FasterNet(Backbone):
    """Classifier: forward(image (B, 3, H, W), normalised, H and W multiples of 32) -> logits (B, classes).

    `drop_path=None` takes the variant's ImageNet rate.
    """

    def __init__(
        self,
        variant: Variant,
        classes: int = 1000,
        *,
        drop_path: float | None = None,
        pconv: PConvForm = "split_cat",
        shortcut: Shortcut = "input",
    ) -> None:
        super().__init__(variant, variant.drop_path if drop_path is None else drop_path, pconv, shortcut)
        self.avgpool_pre_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(variant.width, variant.feature_dim, 1, bias=False),
            activation(variant),
        )
        self.head = nn.Linear(variant.feature_dim, classes)
        self.initialise()

    def maps(self, x: Tensor) -> Tensor:
        """Maps of the last stage (B, width, H/32, W/32)."""
        return self.stages(self.patch_embed(x))

    def pooled(self, maps: Tensor) -> Tensor:
        """Maps of the last stage -> pooled, activated features (B, feature_dim)."""
        return self.avgpool_pre_head(maps).flatten(1)

    def features(self, x: Tensor) -> Tensor:
        """Pooled, activated features (B, feature_dim)."""
        return self.pooled(self.maps(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class FasterNetDense(Backbone):
    """Feature pyramid for detectors: forward((B, 3, H, W)) -> four maps at strides 4, 8, 16, 32, each
    normalised.

    The extra normalisations `norm0/2/4/6` follow a residual sum, so they cannot be folded into a convolution.
    """

    def __init__(
        self, variant: Variant, *, drop_path: float | None = None, pconv: PConvForm = "split_cat"
    ) -> None:
        super().__init__(variant, variant.drop_path if drop_path is None else drop_path, pconv, "input")
        for index in range(len(variant.depths)):
            self.add_module(f"norm{2 * index}", nn.BatchNorm2d(variant.embed_dim * 2**index))
        self.initialise()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        maps = []
        for index, part in enumerate(self.stages):
            x = part(x)
            if index % 2 == 0:
                maps.append(self.get_submodule(f"norm{index}")(x))
        return maps


def build(name: str, classes: int = 1000, **options: object) -> FasterNet:
    """The classifier of a named variant. Raises ValueError for an unknown name."""
    if name not in VARIANTS:
        raise ValueError(f"unknown FasterNet variant {name!r}: choose one of {', '.join(VARIANTS)}")
    return FasterNet(VARIANTS[name], classes, **options)  # type: ignore[arg-type]
