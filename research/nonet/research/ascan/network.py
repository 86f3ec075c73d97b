"""AsCAN: stem, four stages of C and T blocks, pooled classifier; or the four stages' maps for masks.

Source: "AsCAN: Asymmetric Convolution-Attention Networks for Efficient Recognition and Generation", NeurIPS
2024, arXiv 2411.04967. Layouts, widths and block details are reconstructions fitted to the published budgets.
Input: RGB with ImageNet's mean and standard deviation, of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from nonet.research.ascan.blocks import HEAD_DIM, FusedMBConv, TransformerBlock
from nonet.research.ascan.layout import Layout

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Variant:
    """Shape of one AsCAN.

    Args:
        stem: width of the stem.
        widths: of the four stages.
        layout: text for :meth:`Layout.parse`.
        drop_path: rate of the last block in training; the others rise to it linearly.
        head_dim: width of an attention head; divides the widths of stages with a T.
    """

    stem: int
    widths: tuple[int, int, int, int]
    layout: str
    drop_path: float = 0.0
    head_dim: int = HEAD_DIM

    def __post_init__(self) -> None:
        Layout.parse(self.layout)
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError("drop_path must lie in [0, 1)")


_B = (128, 256, 512, 1024)
#: The published sizes, each with another layout of nearly the same budget.
VARIANTS: dict[str, Variant] = {
    "t": Variant(64, (64, 128, 384, 768), "CC|CCCCT|CTTTT|CTTTT", 0.1),
    "t_alt": Variant(64, (64, 128, 384, 768), "CC|CCC|CCTTTT|TTTTT", 0.1),
    "b": Variant(64, _B, "CC|CCCT|CTTT|CTTTT", 0.2),
    "b_alt": Variant(64, _B, "CC|CCT|CCTTTT|CTTT", 0.2),
    "l": Variant(128, (128, 256, 640, 1280), "CCC|CCCCT|CCTTTT|CTTTT", 0.3),
    "l_alt": Variant(64, _B, "CC|CCC|CCCCCCTTTTTTTTTT|CTTTT", 0.3),
}
#: (parameters, multiply-accumulates of a 224 x 224 image) that the paper's text is recalled to state.
PUBLISHED = {"t": (55e6, 7.7e9), "b": (98e6, 16.7e9), "l": (173e6, 30.7e9)}


class Stem(nn.Module):
    """(B, 3, H, W) -> (B, width, H/2, W/2): two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        return self.act(self.norm2(self.conv2(x)))


class Pyramid(nn.Module):
    """Stem and stages: (B, 3, H, W) -> maps of the four stages, at strides 4, 8, 16 and 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        layout = Layout.parse(variant.layout)
        self.widths = variant.widths
        self.stem = Stem(variant.stem)
        self.stages = nn.ModuleList()
        width, number = variant.stem, 0
        for kinds, out in zip(layout.stages, variant.widths, strict=True):
            blocks = nn.Sequential()
            for place, kind in enumerate(kinds):
                rate = variant.drop_path * number / max(1, layout.blocks - 1)
                stride = 2 if place == 0 else 1
                blocks.append(
                    FusedMBConv(width, out, stride, rate)
                    if kind == "C"
                    else TransformerBlock(width, out, stride, rate, variant.head_dim)
                )
                width, number = out, number + 1
            self.stages.append(blocks)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class AsCAN(nn.Module):
    """Classifier: (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, variant: Variant, classes: int = 1000) -> None:
        super().__init__()
        self.pyramid = Pyramid(variant)
        self.norm = nn.LayerNorm(variant.widths[-1])
        self.head = nn.Linear(variant.widths[-1], classes)
        initialise(self.head)

    def features(self, x: Tensor) -> Tensor:
        """Pooled, normalised features (B, width of the last stage)."""
        return self.norm(self.pyramid(x)[-1].mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def reset_classifier(self, classes: int) -> None:
        """A new, untrained classifier for another number of classes."""
        self.head = nn.Linear(self.head.in_features, classes)
        initialise(self.head)


def initialise(module: nn.Module) -> None:
    """Convolutions by their fan-out (normal), linear layers truncated normal (sigma 0.02), biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def build(name: str, classes: int = 1000, *, layout: str | None = None) -> AsCAN:
    """The classifier of a named variant, or of its widths with another layout. Raises ValueError for an
    unknown name or a text that is no layout.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown AsCAN variant {name!r}: choose one of {', '.join(VARIANTS)}")
    variant = VARIANTS[name]
    if layout is not None:
        variant = replace(variant, layout=layout)
    return AsCAN(variant, classes)
