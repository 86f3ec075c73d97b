"""TVConv: a depthwise convolution with one kernel per position, shared by all pictures.

Chen et al., "TVConv: Efficient Translation Variant Convolution for Layout-aware Visual Processing", CVPR
2022, arXiv 2203.10489, section 3. The kernels are no parameters: a small network, the weight-generating
block, makes them of a few learned affinity maps. Neither depends on the picture, so for inference the kernels
are made once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class GeneratorConfig:
    """Size of the weight-generating block; the defaults are the paper's setting for faces and fundus
    pictures.

    `maps`: affinity maps (c_A); `channels`: of its hidden layers (c_B); `layers`: of these beside the first
    (L).
    """

    maps: int = 4
    channels: int = 64
    layers: int = 3


class WeightGenerator(nn.Sequential):
    """Affinity maps (1, c_A, h, w) -> kernels (1, outputs, h, w).

    `layers` + 2 convolutions 3x3 without bias, padded by zeros; layer normalisation over all of (c_B, h, w),
    with a scale and a shift for each element, and ReLU after each but the last. The padding and these
    per-element parameters are how a position enters while the maps are still constant.
    """

    def __init__(self, config: GeneratorConfig, outputs: int, size: tuple[int, int]) -> None:
        steps: list[nn.Module] = []
        width = config.maps
        for _ in range(config.layers + 1):
            steps += [
                nn.Conv2d(width, config.channels, 3, padding=1, bias=False),
                nn.LayerNorm((config.channels, *size)),
                nn.ReLU(inplace=True),
            ]
            width = config.channels
        super().__init__(*steps, nn.Conv2d(width, outputs, 3, padding=1, bias=False))


class TVConv(nn.Module):
    """(N, c, H, W) -> (N, c, h, w) with h = ceil(H / stride), w alike; H and W are fixed.

    O[n, ch, i, j] = sum over u, v of Wt[ch, u k + v, i, j] * padded[n, ch, stride i + u, stride j + v],
    zeros (k - 1) / 2 wide around the picture.

    Training computes the kernels anew in every pass. `freeze` keeps them until `train` is called or a
    parameter of the generator or the maps changes; they are no part of the state dict. `deployed` is the form
    without generator.

    Args:
        channels: c.
        size: H and W of the input.
        stride: 1 or more.
        kernel: k, odd.
        generator: size of the weight-generating block.

    Raises ValueError for an even kernel, and in `forward` for a picture of another size.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        stride: int = 1,
        kernel: int = 3,
        generator: GeneratorConfig | None = None,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a kernel of {kernel} has no middle: it must be odd")
        config = generator or GeneratorConfig()
        self.channels, self.size, self.stride, self.kernel = channels, size, stride, kernel
        self.output_size = output_size(size, stride)
        self.affinity_maps = nn.Parameter(torch.ones(1, config.maps, *self.output_size))
        self.generator = WeightGenerator(config, channels * kernel**2, self.output_size)
        self._kept: Tensor | None = None
        self._made_of: tuple[int, ...] = ()

    def kernels(self) -> Tensor:
        """The generated kernels (c, k^2, h, w): those that are kept while nothing has changed, else new."""
        if self._kept is not None and self._made_of == self._versions():
            return self._kept
        self._kept = None
        made: Tensor = self.generator(self.affinity_maps)
        return made.view(self.channels, self.kernel**2, *self.output_size)

    def freeze(self) -> TVConv:
        """Make the kernels once and keep them; returns the module itself."""
        with torch.no_grad():
            self._kept = None
            self._kept = self.kernels()
        self._made_of = self._versions()
        return self

    def train(self, mode: bool = True) -> TVConv:
        """As of every module; going to training drops the kernels that are kept."""
        if mode:
            self._kept = None
        super().train(mode)
        return self

    def deployed(self, *, half: bool = False) -> FixedTVConv:
        """The same convolution with its kernels as constants, in half precision if asked."""
        with torch.no_grad():
            kernels = self.kernels().detach().clone()
        return FixedTVConv(kernels.half() if half else kernels, self.size, self.stride)

    def forward(self, picture: Tensor) -> Tensor:
        check_size(picture, self.size)
        if torch.is_grad_enabled():
            return with_gradients(picture, self.kernels(), self.stride)
        return by_shifting(picture, self.kernels(), self.stride)

    def _versions(self) -> tuple[int, ...]:
        """Changes when a parameter is written to or replaced: PyTorch counts writes, and a copy has another
        address."""
        return tuple(
            number for each in self.parameters() for number in (each._version, each.data_ptr(), id(each))
        )


class FixedTVConv(nn.Module):
    """The inference form of :class:`TVConv`: kernels (c, k^2, h, w) without what has made them."""

    def __init__(self, kernels: Tensor, size: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.register_buffer("weight", kernels)
        self.weight: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        check_size(picture, self.size)
        return by_shifting(picture, self.weight.to(picture.dtype), self.stride)


def output_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width after a padded convolution of that stride."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def check_size(picture: Tensor, size: tuple[int, int]) -> None:
    """Raises ValueError for a picture (N, c, H, W) of another size: kernels belong to positions."""
    if tuple(picture.shape[-2:]) != size:
        raise ValueError(f"this layer was made for {size[0]} x {size[1]}, not {list(picture.shape[-2:])}")


def side_of(kernels: Tensor) -> int:
    """k of kernels (c, k^2, h, w)."""
    return math.isqrt(kernels.shape[1])


def by_unfolding(picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """All windows at once: (N, c, k^2, h, w) times the kernels, summed. The authors' form for training."""
    count, channels = picture.shape[:2]
    side = side_of(kernels)
    windows = F.unfold(picture, side, padding=side // 2, stride=stride)
    return (windows.view(count, channels, *kernels.shape[1:]) * kernels).sum(2)


def by_shifting(picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """One shifted view of the padded picture after the other times its plane of the kernels, added up: the
    windows are never in memory."""
    padded = F.pad(picture, (side_of(kernels) // 2,) * 4)
    first, *others = tap_views(padded, kernels, stride)
    total = first * kernels[:, 0]
    for tap, view in enumerate(others, start=1):
        total = torch.addcmul(total, view, kernels[:, tap])
    return total


def tap_views(padded: Tensor, kernels: Tensor, stride: int) -> list[Tensor]:
    """What each of the k^2 taps of a kernel sees of the padded picture: views (N, c, h, w), row by row."""
    side = side_of(kernels)
    height, width = kernels.shape[-2:]
    return [
        padded[
            ...,
            row : row + stride * (height - 1) + 1 : stride,
            column : column + stride * (width - 1) + 1 : stride,
        ]
        for row in range(side)
        for column in range(side)
    ]


class _ShiftAndAdd(torch.autograd.Function):
    """`by_shifting` with a backward pass that keeps no windows either: what autograd makes of the forward
    pass writes a padded picture for each tap, and unfolding takes k^2 times the memory."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(picture, kernels)
        ctx.stride = stride
        return by_shifting(picture, kernels, stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        picture, kernels = ctx.saved_tensors
        border = side_of(kernels) // 2
        padded = F.pad(picture, (border,) * 4)
        of_padded, of_kernels = torch.zeros_like(padded), torch.empty_like(kernels)
        views = tap_views(padded, kernels, ctx.stride)
        for tap, target in enumerate(tap_views(of_padded, kernels, ctx.stride)):
            target.addcmul_(gradient, kernels[:, tap])
            of_kernels[:, tap] = (gradient * views[tap]).sum(0)
        height, width = picture.shape[-2:]
        return of_padded[..., border : border + height, border : border + width], of_kernels, None


def with_gradients(picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """The form for training: shift and add, forwards and backwards."""
    result: Tensor = _ShiftAndAdd.apply(picture, kernels, stride)
    return result


def by_window_views(picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """The windows as one overlapping view of the padded picture, times the kernels, summed.

    Both strides of the view are `stride` times those of the padded picture. (A row stride that leaves this
    factor out is right at stride 1 and reads wrong rows at stride 2.)
    """
    side = side_of(kernels)
    height, width = kernels.shape[-2:]
    padded = F.pad(picture, (side // 2,) * 4).contiguous()
    count, channels, rows, columns = padded.shape
    windows = padded.as_strided(
        (count, channels, side, side, height, width),
        (channels * rows * columns, rows * columns, columns, 1, stride * columns, stride),
    )
    return (windows * kernels.view(channels, side, side, height, width)).sum((2, 3))
