"""Feature pyramids for the detector: maps at strides 8, 16 and 32 of a network that can classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.detection.folding import followed_by_norm
from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet import network as fasternet

BackboneName = Literal["fasternet_nano", "fasternet_t0", "fasternet_t1", "efficientnet_lite0"]
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)


class FasterNetPyramid(nn.Module):
    """The dense form of a FasterNet without its finest map.

    forward(images (B, 3, H, W) in [0, 1], sides multiples of 32) -> maps at strides 8, 16, 32.
    Source: FasterNet, section 4.3 and the official detection backbone (norms after each stage).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, variant: str) -> None:
        super().__init__()
        shape = fasternet.VARIANTS[variant]
        self.network = fasternet.FasterNetDense(shape, drop_path=0.0)
        self.widths = tuple(shape.embed_dim * 2**index for index in (1, 2, 3))
        self.register_buffer("mean", torch.tensor(fasternet.MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(fasternet.STD)[:, None, None], persistent=False)
        # The finest map is not used: its normalisation would never be trained.
        self.network.norm0 = nn.Identity()

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network((images - self.mean) / self.std)[1:]


class LitePyramid(nn.Module):
    """EfficientNet-Lite0 without its classifier; otherwise as :class:`FasterNetPyramid`."""

    #: Index of the last block at each stride, of those of Lite0.
    ENDS = (4, 10, 15)

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        network = lite.EfficientNetLite0()
        self._conv_stem, self._bn0 = network._conv_stem, network._bn0
        self._blocks = network._blocks[: self.ENDS[-1] + 1]
        self.widths = (40, 112, 320)
        self.register_buffer("mean", torch.tensor(lite.MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(lite.STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = functional.relu6(self._bn0(self._conv_stem((images - self.mean) / self.std)))
        maps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.ENDS:
                maps.append(x)
        return maps


Pyramid = FasterNetPyramid | LitePyramid


def build_pyramid(name: BackboneName) -> Pyramid:
    """A pyramid with random weights. Raises ValueError for an unknown name."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    return (
        LitePyramid() if name == "efficientnet_lite0" else FasterNetPyramid(name.removeprefix("fasternet_"))
    )


@torch.no_grad()
def start_from(pyramid: Pyramid, tensors: Mapping[str, Tensor], pictures: Tensor) -> None:
    """Take the weights of a trained classifier, with or without batch normalisations.

    Where they were folded into the convolutions, each normalisation is put back so that the network computes
    the same on `pictures` (B, 3, H, W) in [0, 1] and can be trained on: its statistics are those of the
    convolution's output, scale and shift undo it. The normalisations of the maps stay fresh.

    Raises ValueError if a tensor of the pyramid is missing or has another shape.
    """
    network = pyramid.network if isinstance(pyramid, FasterNetPyramid) else pyramid
    pairs = {conv: norm for conv, norm in followed_by_norm(network).items() if not norm.startswith("norm")}
    biases = {conv: tensors[f"{conv}.bias"] for conv in pairs if f"{conv}.bias" in tensors}
    undone = {pairs[conv] for conv in biases}
    for name, value in network.state_dict().items():
        owner = name.rsplit(".", 1)[0]
        if owner in undone or owner.startswith("norm"):
            continue
        if name not in tensors or tensors[name].shape != value.shape:
            raise ValueError(f"no weights for {name} of shape {list(value.shape)}")
        value.copy_(tensors[name])
    if biases:
        _unfold(pyramid, network, pairs, biases, pictures)


def _unfold(
    pyramid: nn.Module,
    network: nn.Module,
    pairs: Mapping[str, str],
    biases: Mapping[str, Tensor],
    pictures: Tensor,
) -> None:
    def settle(conv: str, bias: Tensor) -> torch.utils.hooks.RemovableHandle:
        norm = network.get_submodule(pairs[conv])
        assert isinstance(norm, nn.BatchNorm2d)

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            variance, mean = torch.var_mean(output, (0, 2, 3), correction=0)
            values = {
                "running_mean": mean,
                "running_var": variance,
                "weight": (variance + norm.eps).sqrt(),
                "bias": mean + bias,
            }
            norm.load_state_dict(values, strict=False)

        return network.get_submodule(conv).register_forward_hook(hook)

    handles = [settle(conv, bias) for conv, bias in biases.items()]
    pyramid.eval()
    try:
        pyramid(pictures)
    finally:
        for handle in handles:
            handle.remove()
