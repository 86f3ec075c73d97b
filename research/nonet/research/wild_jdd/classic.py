"""Points of comparison: classic demosaicking, classic demosaick-then-denoise, and the published network.

The filters are those of the package `colour-demosaicing` (Malvar, He, Cutler 2004; Menon, Andriani, Calvagno
2007), the denoiser colour BM3D of the package `bm3d` (Dabov et al. 2007; its licence allows non-commercial
use only, so it is part of evaluation alone and never of the product). Both are imported where used:
evaluation is an extra.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nonet.research.wild_jdd import learned_linear
from nonet.research.wild_jdd.bayer import Phase, bilinear
from nonet.research.wild_jdd.network import NETWORKS, WildJdd, channels_last
from nonet.research.wild_jdd.photographs import load_training_set
from nonet.research.wild_jdd.published_start import load_published
from nonet.research.wild_jdd.restore import Maps, Tiling, restore, restore_maps
from nonet.research.wild_jdd.teachers import told_teacher

Method = Callable[[Tensor, float], Tensor]  # RGGB mosaic (1, 1, H, W), true sigma (0-255) -> RGB (1, 3, H, W)


def malvar(readings: Tensor, sigma: float) -> Tensor:
    """Malvar, He and Cutler 2004; ignores the noise."""
    from colour_demosaicing import demosaicing_CFA_Bayer_Malvar2004

    return _filtered(demosaicing_CFA_Bayer_Malvar2004, readings)


def menon(readings: Tensor, sigma: float) -> Tensor:
    """Menon, Andriani and Calvagno 2007; ignores the noise."""
    from colour_demosaicing import demosaicing_CFA_Bayer_Menon2007

    return _filtered(demosaicing_CFA_Bayer_Menon2007, readings)


def menon_bm3d(readings: Tensor, sigma: float) -> Tensor:
    """Menon 2007, then colour BM3D told the true level."""
    picture = menon(readings, sigma)
    if sigma == 0:
        return picture
    from bm3d import bm3d_rgb

    values = picture[0].permute(1, 2, 0).double().numpy()
    denoised = bm3d_rgb(values, sigma / 255)
    return torch.from_numpy(np.ascontiguousarray(denoised)).permute(2, 0, 1)[None].float()


def interpolate(readings: Tensor, sigma: float) -> Tensor:
    """Plain linear interpolation; ignores the noise."""
    return bilinear(readings)


def make_learned_linear(*, windows: int = 2500) -> Method:
    """The learned linear 9x9 map, fitted on the training photographs and refitted for each level."""
    pictures = load_training_set()
    moments = learned_linear.collect_moments([*pictures.clean, *pictures.full[::3]], windows=windows)
    fitted: dict[float, Tensor] = {}

    def method(readings: Tensor, sigma: float) -> Tensor:
        if sigma not in fitted:
            fitted[sigma] = learned_linear.fit(moments, sigma)
        return learned_linear.apply(fitted[sigma], readings)

    return method


def make_published_network() -> Method:
    """Gharbi et al. 2016 with the weights that `demosaicnet` ships, trained without noise."""
    network = channels_last(WildJdd(NETWORKS["chain"]).eval())
    load_published(network)

    def method(readings: Tensor, sigma: float) -> Tensor:
        return restore(network, readings).mean

    return method


def make_told_network() -> Method:
    """The noise-aware network of the same authors, told the true level."""
    teacher = told_teacher()

    def method(readings: Tensor, sigma: float) -> Tensor:
        def maps(packed: Tensor) -> Maps:
            return {"image": teacher(packed, torch.full_like(packed[:, :1], sigma / 255))}

        with torch.inference_mode():
            return restore_maps(maps, readings, phase=Phase.RGGB, tiling=Tiling())["image"]

    return method


def make_network(network: WildJdd) -> Method:
    """A trained network, blind to the level."""

    def method(readings: Tensor, sigma: float) -> Tensor:
        return restore(network, readings).mean

    return method


def _filtered(function: Callable[..., np.ndarray], readings: Tensor) -> Tensor:
    values = function(readings[0, 0].double().numpy(), pattern="RGGB")
    return torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)[None].float()
