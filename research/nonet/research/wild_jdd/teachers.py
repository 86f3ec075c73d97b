"""Published networks that a training listens to beside the ground truth, and the weights to begin from.

clean   demosaicnet's weights (MIT), trained without noise on millions of patches that are hard to demosaick
told    the noise-aware weights of the same authors (MIT), `gharbi_noise_aware` of the data folder: a network
        of nearly the same layout that is told the level of the noise

"Deep Joint Demosaicking and Denoising", M. Gharbi, G. Chaurasia, S. Paris, F. Durand, SIGGRAPH Asia 2016. The
told network takes its mosaic upside down and blue first; mirrored kernels and swapped planes make the same
function of an RGGB mosaic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn

from nonet.research.wild_jdd.network import NETWORKS, WildJdd, scatter_kernels
from nonet.research.wild_jdd.photographs import data_folder
from nonet.research.wild_jdd.published_start import load_published

TOLD_SET = "gharbi_noise_aware"
FAINT = 2 / 255
"""Patches with noise up to this are taught by the network that never saw any."""
WIDTH, DEPTH = 64, 15


class ToldNetwork(nn.Module):
    """Packed RGGB mosaic (N, 4, h, w) and noise level (N, 1, h, w) on the same scale -> image
    (N, 3, 2h, 2w)."""

    scatter_kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)
        self.first = nn.Conv2d(5, 2 * WIDTH, 3, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv2d(WIDTH, 2 * WIDTH if index == DEPTH - 2 else WIDTH, 3, padding=1)
            for index in range(DEPTH - 1)
        )
        self.to_image = nn.Conv2d(WIDTH, 12, 1)
        self.refine = nn.Sequential(nn.Conv2d(6, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, 3, 1))
        self.register_buffer("scatter_kernels", scatter_kernels(), persistent=False)

    def forward(self, packed: Tensor, level: Tensor) -> Tensor:
        x = torch.cat([self.mix(packed), level], dim=1)
        x = _halves_multiplied(torch.relu(self.first(x)))
        for conv in self.convs:
            x = torch.relu(conv(x))
        image = F.pixel_shuffle(self.to_image(_halves_multiplied(x)), 2)
        readings = F.pixel_shuffle(F.conv2d(packed, self.scatter_kernels), 2)
        refined: Tensor = self.refine(torch.cat([readings, image], dim=1))
        return refined


@dataclass(frozen=True)
class Teachers:
    """Both networks, frozen."""

    clean: WildJdd
    told: ToldNetwork

    def image(self, packed: Tensor, levels: Tensor) -> Tensor:
        """Each patch (N, 4, h, w) by the teacher of its noise, of true levels (N, 1, h, w): (N, 3, 2h, 2w),
        without gradient."""
        faint = levels.amax(dim=(1, 2, 3)) <= FAINT
        count, _, height, width = packed.shape
        answer = packed.new_empty(count, 3, 2 * height, 2 * width)
        with torch.no_grad():
            if faint.any():
                answer[faint] = self.clean(packed[faint]).mean
            if not faint.all():
                answer[~faint] = self.told(packed[~faint], levels[~faint])
        return answer

    def to(self, device: torch.device) -> Teachers:
        return Teachers(self.clean.to(device), self.told.to(device))


def load_teachers(weights: Path | None = None, data: Path | None = None) -> Teachers:
    """Both teachers; ``weights`` is demosaicnet's file, by default that of the installed distribution.

    Raises:
        FileNotFoundError: if one of them is absent.
        ValueError: if demosaicnet's file is not the one that was published.
    """
    clean = WildJdd(NETWORKS["chain"])
    load_published(clean, weights)
    return Teachers(clean.eval().requires_grad_(False), told_teacher(data))


def told_teacher(data: Path | None = None) -> ToldNetwork:
    """The published network that is told the level.

    Raises:
        FileNotFoundError: if the data folder lacks it.
    """
    path = _told_file(data)
    if not path.is_file():
        raise FileNotFoundError(f"data set {TOLD_SET} is absent")
    teacher = ToldNetwork()
    teacher.load_state_dict(told_weights(load_file(path)))
    return teacher.eval().requires_grad_(False)


def has_told_teacher(data: Path | None = None) -> bool:
    """Whether the data folder has the network that is told the level."""
    return _told_file(data).is_file()


def load_graph(network: WildJdd, graph: Path) -> None:
    """Copy the weights of a published version into a network of the same layout.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the graph is of another layout.
    """
    if not graph.is_file():
        raise FileNotFoundError("this training begins from a published version, and there is none")
    tensors = {
        item.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(str(graph)).graph.initializer
    }
    target = network.state_dict()
    if any(name not in tensors or tensors[name].shape != value.shape for name, value in target.items()):
        raise ValueError("the published version has another layout than this preset's network")
    network.load_state_dict({name: tensors[name] for name in target})


def told_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published noise-aware tensors under the names of `ToldNetwork`, for RGGB."""

    def mirrored(name: str) -> Tensor:
        return state[name].flip(-2).contiguous()

    packing = mirrored("pack_mosaick.weight").flip(1)  # (4, 3, 2, 2), planes now R, G, B
    senses = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))  # (colour, row, column) of each packed plane
    found = {
        "mix.weight": torch.stack([packing[:, c, y, x] for c, y, x in senses], dim=1)[:, :, None, None],
        "mix.bias": state["pack_mosaick.bias"],
        "first.weight": mirrored("preconv1.weight"),
        "first.bias": state["preconv1.bias"],
    }
    for index in range(2, DEPTH + 1):
        found[f"convs.{index - 2}.weight"] = mirrored(f"conv{index}.weight")
        found[f"convs.{index - 2}.bias"] = state[f"conv{index}.bias"]
    upsampling = mirrored("unpack_mosaick.weight").reshape(3, 4, 4)  # (colour, plane in, phase out)
    prediction, bias = state["residual.weight"].reshape(3, 4, -1), state["residual.bias"].reshape(3, 4)
    folded = torch.einsum("ckp,ckf->cpf", upsampling, prediction)
    folded_bias = torch.einsum("ckp,ck->cp", upsampling, bias) + state["unpack_mosaick.bias"][:, None]
    found["to_image.weight"] = folded.flip(0).reshape(12, -1, 1, 1)
    found["to_image.bias"] = folded_bias.flip(0).reshape(12)
    sharpening = mirrored("post_conv1.weight")  # sees the mosaic's three planes, then the image's
    found["refine.0.weight"] = torch.cat([sharpening[:, :3].flip(1), sharpening[:, 3:].flip(1)], dim=1)
    found["refine.0.bias"] = state["post_conv1.bias"]
    found["refine.2.weight"] = state["output.weight"].flip(0)
    found["refine.2.bias"] = state["output.bias"].flip(0)
    return found


def _told_file(data: Path | None) -> Path:
    return (data or data_folder()) / TOLD_SET / "weights.safetensors"


def _halves_multiplied(x: Tensor) -> Tensor:
    values, gates = x.chunk(2, dim=1)
    return values * gates
