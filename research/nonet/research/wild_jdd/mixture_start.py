"""Where the experts begin: three networks of the same layout, trained by others or here.

clean   the weights that the PyPI distribution `demosaicnet` ships (MIT), trained without noise
blind   a chain trained here, from its published graph; that of an earlier mixture serves as well
told    the noise-aware weights of Gharbi et al. (MIT), `gharbi_noise_aware` of the data folder

The told network takes its mosaic upside down and blue first; mirrored kernels and swapped planes make the
same function of an RGGB mosaic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor

from nonet.research.wild_jdd.image_chain import ImageChain
from nonet.research.wild_jdd.mixture import BLIND, CLEAN, TOLD, Mixture
from nonet.research.wild_jdd.network import NETWORKS, WildJdd
from nonet.research.wild_jdd.photographs import data_folder
from nonet.research.wild_jdd.published_start import load_published

TOLD_SET = "gharbi_noise_aware"


def start_experts(network: Mixture, *, clean: Path | None, blind: Path, data: Path | None) -> None:
    """Put the starting weights into the experts.

    Args:
        network: changed in place; what is not an expert stays as it is.
        clean: demosaicnet's file; None takes the installed distribution.
        blind: graph of a version published before.
        data: the data folder; None takes the usual one.

    Raises:
        FileNotFoundError: if one of the three is absent.
        ValueError: if one of them is of another layout.
    """
    chain = WildJdd(NETWORKS["chain"])
    load_published(chain, clean)
    network.experts[CLEAN].load_state_dict(chain_weights(chain.state_dict()))
    network.experts[BLIND].load_state_dict(graph_weights(blind))
    network.experts[TOLD].load_state_dict(told_teacher(data).state_dict())


def told_teacher(data: Path | None = None) -> ImageChain:
    """The published network that is told the level.

    Raises:
        FileNotFoundError: if the data folder lacks it.
    """
    path = _told_file(data)
    if not path.is_file():
        raise FileNotFoundError(f"data set {TOLD_SET} is absent")
    teacher = ImageChain(told=True)
    teacher.load_state_dict(told_weights(load_file(path)))
    return teacher.eval().requires_grad_(False)


def has_told_teacher(data: Path | None = None) -> bool:
    """Whether the data folder has the network that is told the level."""
    return _told_file(data).is_file()


def _told_file(data: Path | None) -> Path:
    return (data or data_folder()) / TOLD_SET / "weights.safetensors"


def chain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image's part of a `chain` network under the names of `ImageChain`.

    Raises:
        ValueError: if it is no such network.
    """
    found = {}
    for name, value in state.items():
        place = re.fullmatch(r"body\.convs\.(\d+)\.(weight|bias)", name)
        if place:
            index = int(place[1])
            found[f"first.{place[2]}" if index == 0 else f"convs.{index - 1}.{place[2]}"] = value
        elif name.startswith("body.mix."):
            found[name.removeprefix("body.")] = value
        elif name.startswith(("to_image.", "refine.")):
            found[name] = value
    expected = ImageChain(told=False).state_dict()
    if {name: value.shape for name, value in found.items()} != {
        name: value.shape for name, value in expected.items()
    }:
        raise ValueError("these weights are not those of a chain network")
    return found


def graph_weights(path: Path) -> dict[str, Tensor]:
    """The blind expert of a published graph: its only network, or that expert of a mixture.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the graph is of another layout.
    """
    if not path.is_file():
        raise FileNotFoundError("the blind expert begins from a published version, and there is none")
    model = onnx.load(str(path))
    tensors = {
        item.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in model.graph.initializer
    }
    prefix = f"experts.{BLIND}."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return own or chain_weights(tensors)


def told_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published noise-aware tensors under the names of `ImageChain`, for RGGB."""

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
    for index in range(2, 16):
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
