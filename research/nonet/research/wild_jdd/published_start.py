"""Starting weights: the published Bayer network of Gharbi et al. as this package's `chain` network.

"Deep Joint Demosaicking and Denoising", M. Gharbi, G. Chaurasia, S. Paris, F. Durand, SIGGRAPH Asia 2016.
The weights ship in the PyPI distribution `demosaicnet` (MIT licence), trained without noise. They expect a
GRBG mosaic; mirroring every kernel left to right makes the same function of an RGGB mosaic. The conversion
is exact away from borders.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from nonet.research.wild_jdd.network import NETWORKS, WildJdd

WEIGHTS_SHA256 = "a90f45c34b89fea3faf49060687839a7d191d302f597a302b31d1bbc021ff7d8"


def weights_file(given: Path | None = None) -> Path:
    """Path of the published weights: `given`, or those in the installed `demosaicnet` distribution.

    Raises:
        FileNotFoundError: if the distribution is not installed.
        ValueError: if the file is not the one that was published.
    """
    path = given or _installed_weights()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name} with the published weights")
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise ValueError("these weights differ from the published file; refusing to load them")
    return path


def _installed_weights() -> Path:
    spec = importlib.util.find_spec("demosaicnet")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the published start needs the package demosaicnet: pip install --no-deps demosaicnet"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "bayer.pth"


def load_published(network: WildJdd, file: Path | None = None) -> None:
    """Copy the published weights into a `chain` network; its new outputs (logs, error scale) stay as they
    are.

    Raises:
        ValueError: if the network has another layout.
    """
    if network.config != NETWORKS["chain"]:
        raise ValueError("the published start fits only the `chain` network")
    state: dict[str, Tensor] = torch.load(weights_file(file), weights_only=True, map_location="cpu")
    target = network.state_dict()

    def mirrored(name: str) -> Tensor:
        return state[name].flip(-1).contiguous()

    # Packing: a 2x2 convolution over the three masked planes; with RGGB planes R, G1, G2, B it is a 1x1 mix.
    packing = mirrored("main_processor.pack_mosaic.weight")  # (4, 3, 2, 2)
    senses = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))  # (colour, row, column) of each packed plane
    target["body.mix.weight"] = torch.stack([packing[:, c, y, x] for c, y, x in senses], dim=1)[
        :, :, None, None
    ]
    target["body.mix.bias"] = state["main_processor.pack_mosaic.bias"]
    for index in range(network.config.depth):
        target[f"body.convs.{index}.weight"] = mirrored(f"main_processor.conv{index + 1}.weight")
        target[f"body.convs.{index}.bias"] = state[f"main_processor.conv{index + 1}.bias"]

    # The 1x1 prediction of 12 planes and the grouped 2x2 up-sampling are one linear map followed by pixel
    # shuffle.
    upsampling = mirrored("upsampler.weight").reshape(3, 4, 4)  # (colour, plane in, phase out)
    prediction = state["residual_predictor.weight"].reshape(3, 4, -1)
    bias = state["residual_predictor.bias"].reshape(3, 4)
    folded = torch.einsum("ckp,ckf->cpf", upsampling, prediction)
    folded_bias = torch.einsum("ckp,ck->cp", upsampling, bias) + state["upsampler.bias"][:, None]
    target["to_image.weight"] = folded.reshape(12, -1, 1, 1)
    target["to_image.bias"] = folded_bias.reshape(12)

    target["refine.0.weight"] = mirrored("fullres_processor.post_conv.weight")
    target["refine.0.bias"] = state["fullres_processor.post_conv.bias"]
    target["refine.2.weight"] = state["fullres_processor.output.weight"]
    target["refine.2.bias"] = state["fullres_processor.output.bias"]
    network.load_state_dict(target)
