"""Bayer mosaics: sampling, packing and linear interpolation, for all four phases.

Everything inside the system works on the RGGB phase (red at even row, even column). A mosaic of another
phase is brought to RGGB by mirroring rows and/or columns, which changes no value and is undone on the result.
Source: specification of arXiv 2101.04442; mirroring in the spirit of BayerUnify (arXiv 1904.12945).
"""

from __future__ import annotations

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor


class Phase(StrEnum):
    """Colours of the top-left 2x2 block of a mosaic, in reading order."""

    RGGB = "RGGB"
    GRBG = "GRBG"
    GBRG = "GBRG"
    BGGR = "BGGR"


# For an even-sized mosaic, mirroring the columns turns RG/GB into GR/BG, mirroring the rows into GB/RG.
_FLIPS: dict[Phase, tuple[int, ...]] = {
    Phase.RGGB: (),
    Phase.GRBG: (-1,),
    Phase.GBRG: (-2,),
    Phase.BGGR: (-2, -1),
}
_CHANNEL = {"R": 0, "G": 1, "B": 2}


def to_rggb(mosaic: Tensor, phase: Phase) -> Tensor:
    """Mirror a mosaic (..., H, W) of `phase` so that it reads RGGB. Its own inverse.

    Raises:
        ValueError: if H or W is odd and the phase is not RGGB already.
    """
    flips = _FLIPS[Phase(phase)]
    if not flips:
        return mosaic
    _require_even(mosaic)
    return torch.flip(mosaic, flips)


def from_rggb(image: Tensor, phase: Phase) -> Tensor:
    """Undo `to_rggb` on a mosaic or image (..., H, W)."""
    return to_rggb(image, phase)


def sampling_mask(height: int, width: int, phase: Phase = Phase.RGGB) -> Tensor:
    """Which channel each pixel senses: float mask (3, H, W) with exactly one 1 per pixel."""
    mask = torch.zeros(3, height, width)
    for index, colour in enumerate(Phase(phase).value):
        mask[_CHANNEL[colour], index // 2 :: 2, index % 2 :: 2] = 1.0
    return mask


def mosaic(image: Tensor, phase: Phase = Phase.RGGB) -> Tensor:
    """Sample an RGB image (..., 3, H, W): the mosaic (..., 1, H, W), one reading per pixel."""
    height, width = image.shape[-2:]
    mask = sampling_mask(height, width, phase).to(image)
    return (image * mask).sum(dim=-3, keepdim=True)


def pack(mosaic: Tensor) -> Tensor:
    """RGGB mosaic (..., 1, H, W) -> planes R, G1, G2, B (..., 4, H/2, W/2).

    Raises:
        ValueError: if H or W is odd.
    """
    _require_even(mosaic)
    plane = mosaic[..., 0, :, :]
    return torch.stack(
        [plane[..., 0::2, 0::2], plane[..., 0::2, 1::2], plane[..., 1::2, 0::2], plane[..., 1::2, 1::2]],
        dim=-3,
    )


def unpack(planes: Tensor) -> Tensor:
    """Inverse of `pack`: (..., 4, h, w) -> (..., 1, 2h, 2w)."""
    return F.pixel_shuffle(planes, 2)


def bilinear(mosaic: Tensor) -> Tensor:
    """Linear interpolation of an RGGB mosaic (N, 1, H, W) to RGB (N, 3, H, W), mirrored border."""
    height, width = mosaic.shape[-2:]
    planes = mosaic * sampling_mask(height, width).to(mosaic)
    padded = F.pad(planes, (1, 1, 1, 1), mode="reflect")
    red_blue = mosaic.new_tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4
    green = mosaic.new_tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
    kernels = torch.stack([red_blue, green, red_blue]).unsqueeze(1)
    return F.conv2d(padded, kernels, groups=3)


def packed_bilinear_kernels() -> Tensor:
    """`bilinear` as one 3x3 convolution on packed planes followed by pixel shuffle: weights (12, 4, 3, 3).

    Output channel 4c + 2i + j is colour c at row phase i, column phase j, as `pixel_shuffle` expects.
    """
    weights = torch.zeros(12, 4, 3, 3)
    red_blue = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4
    green = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
    senses = {0: ((0, 0),), 1: ((0, 1), (1, 0)), 2: ((1, 1),)}  # phases (row, column) where a colour is read
    for colour, phases in senses.items():
        kernel = green if colour == 1 else red_blue
        for row in (0, 1):
            for column in (0, 1):
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        y, x = row + dy, column + dx
                        if (y % 2, x % 2) in phases:
                            plane = 2 * (y % 2) + x % 2
                            weights[4 * colour + 2 * row + column, plane, y // 2 + 1, x // 2 + 1] += kernel[
                                dy + 1, dx + 1
                            ]
    return weights


def pad_to_even(mosaic: Tensor, margin: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Mirror-pad an RGGB mosaic (N, 1, H, W) by at least `margin` (even) keeping the phase, and to even size.

    Returns the padded mosaic and the pads (left, right, top, bottom). Mirroring about a pixel keeps the
    parity of rows and columns, so the padded mosaic is a valid RGGB mosaic.

    Raises:
        ValueError: if the margin is odd or not smaller than the image.
    """
    height, width = mosaic.shape[-2:]
    if margin % 2:
        raise ValueError(f"margin must be even to keep the Bayer phase, got {margin}")
    pads = (margin, margin + width % 2, margin, margin + height % 2)
    if max(pads[:2]) >= width or max(pads[2:]) >= height:
        raise ValueError(f"a mosaic of {height}x{width} is too small for a margin of {margin}")
    return F.pad(mosaic, pads, mode="reflect"), pads


def _require_even(mosaic: Tensor) -> None:
    height, width = mosaic.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"a mosaic needs even height and width, got {height}x{width}")
