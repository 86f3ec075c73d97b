"""The form of a face network that is served: kernels as constants, normalisation folded in, no generator.

ONNX has no operator with a kernel for each position, so a TVConv becomes several of its operators; how fast
they are together depends on the engine, see :mod:`.speed`.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonet.research.fasternet.fusion import folded
from nonet.research.tvconv.layer import FixedTVConv, TVConv, tap_views
from nonet.research.tvconv.mobilenet import FaceNet, InvertedResidual

Form = Literal["shift", "identity_conv", "windows"]
FORMS: tuple[Form, ...] = ("shift", "identity_conv", "windows")
#: The fastest of single layers at batch 1 and stride 1 in ONNX Runtime on a CPU, see docs/tvconv.md.
SERVED_FORM: Form = "shift"


class ConstantTVConv(nn.Module):
    """A TVConv with constant kernels and a bias for each channel, in one of three equal forms.

    `shift`: for each tap a slice of the padded picture times its plane, added up. `identity_conv`: a
    depthwise convolution whose kernels are the k^2 unit vectors brings the windows, times the planes,
    summed by another of ones. `windows`: the slices in one tensor, times the planes, one sum.
    """

    def __init__(self, kernels: Tensor, bias: Tensor, stride: int, form: Form) -> None:
        super().__init__()
        self.stride, self.form = stride, form
        self.channels, self.taps = kernels.shape[:2]
        self.side = round(self.taps**0.5)
        self.register_buffer("weight", kernels)
        self.register_buffer("bias", bias.view(-1, 1, 1))
        ones = torch.eye(self.taps).repeat(self.channels, 1)
        self.register_buffer("pick", ones.view(-1, 1, self.side, self.side))
        self.register_buffer("add", torch.ones(self.channels, self.taps, 1, 1))
        self.weight: Tensor
        self.bias: Tensor
        self.pick: Tensor
        self.add: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        if self.form == "identity_conv":
            windows = F.conv2d(picture, self.pick, None, self.stride, self.side // 2, groups=self.channels)
            weighted = windows * self.weight.reshape(-1, *self.weight.shape[2:])
            return F.conv2d(weighted, self.add, groups=self.channels) + self.bias
        views = tap_views(F.pad(picture, (self.side // 2,) * 4), self.weight, self.stride)
        if self.form == "windows":
            return (torch.stack(views, 2) * self.weight).sum(2) + self.bias
        total = self.bias
        for tap, view in enumerate(views):
            total = view * self.weight[:, tap] + total
        return total


class ServingForm(nn.Module):
    """Faces (N, 3, S, S) in -1..1 -> embeddings (N, D): equal to a FaceNet in eval mode.

    The last linear layer is a 1x1 convolution: a matrix product blocks its sums by batch size, so an answer
    would change with its neighbours.
    """

    def __init__(self, network: FaceNet, form: Form = SERVED_FORM) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        self.features = fold_chain(network.features, form)
        self.last = last_layer(network)

    def forward(self, faces: Tensor) -> Tensor:
        pooled = self.features(faces).mean((2, 3), keepdim=True)
        embedding: Tensor = self.last(pooled).flatten(1)
        return embedding


@torch.no_grad()
def fold_chain(chain: nn.Sequential, form: Form) -> nn.Sequential:
    """A chain of layers with each batch normalisation folded into the convolution or TVConv before it."""
    layers: list[nn.Module] = []
    for layer in chain:
        if isinstance(layer, InvertedResidual):
            layer.body = fold_chain(layer.body, form)
            layers.append(layer)
        elif isinstance(layer, nn.BatchNorm2d):
            before = layers.pop()
            layers.append(
                folded(before, layer) if isinstance(before, nn.Conv2d) else fixed(before, layer, form)
            )
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def fixed(layer: nn.Module, norm: nn.BatchNorm2d, form: Form) -> ConstantTVConv:
    """`norm(layer(x))` for a TVConv or its deployed form, computed in float64."""
    assert isinstance(layer, TVConv | FixedTVConv)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    kernels = layer.kernels() if isinstance(layer, TVConv) else layer.weight
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    scaled = (kernels.double() * scale[:, None, None, None]).float()
    return ConstantTVConv(scaled.detach(), bias.float().detach(), layer.stride, form)


@torch.no_grad()
def last_layer(network: FaceNet) -> nn.Conv2d:
    """The normalisations around the linear layer folded into it, as a 1x1 convolution, in float64."""

    def affine(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        return scale, norm.bias.double() - norm.running_mean.double() * scale

    before, shift_before = affine(network.norm)
    after, shift_after = affine(network.last_norm)
    weight, bias = network.linear.weight.double(), network.linear.bias.double()
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    layer.weight = nn.Parameter((weight * before * after[:, None])[:, :, None, None].float())
    layer.bias = nn.Parameter(((bias + weight @ shift_before) * after + shift_after).float())
    return layer


def random_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch normalisation statistics and scales as a trained network has: for measuring untrained
    networks and for showing that folding is right."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.8, 1.2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return network
