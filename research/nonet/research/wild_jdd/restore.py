"""Whole mosaics through a network: mirrored margin, and tiles with overlap so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nonet.research.wild_jdd.bayer import Phase, from_rggb, pack, pad_to_even, to_rggb
from nonet.research.wild_jdd.elbo import Posterior
from nonet.research.wild_jdd.network import WildJdd

Maps = dict[str, Tensor]  # maps at full resolution by name, each (N, 3, H, W)


@dataclass(frozen=True)
class Tiling:
    """Tiles of `size` pixels (a multiple of 4), of which a border of `halo` pixels is context and cut away.

    With `exact`, small mosaics are extended so that every tile has the full size, as a fixed graph needs.
    """

    size: int = 512
    halo: int = 36
    exact: bool = False

    def __post_init__(self) -> None:
        if self.size % 4 or self.halo % 2 or self.halo < 0:
            raise ValueError("tile size must be a multiple of 4 and the halo even and not negative")
        if self.size <= 2 * self.halo:
            raise ValueError(f"a tile of {self.size} leaves nothing after a halo of {self.halo} on each side")


def restore(
    network: WildJdd, mosaic: Tensor, *, phase: Phase = Phase.RGGB, tiling: Tiling | None = None
) -> Posterior:
    """Posterior maps (N, 3, H, W) of mosaics (N, 1, H, W) in [0, 1], without gradient.

    Odd sizes are allowed for RGGB only: other phases are mirrored, which needs even sizes.
    """
    tiling = tiling or Tiling(size=max(512, 4 * network.halo), halo=network.halo)

    def maps(packed: Tensor) -> Maps:
        return {name: values for name, values in vars(network(packed)).items() if values is not None}

    with torch.inference_mode():
        return Posterior(**restore_maps(maps, mosaic, phase=phase, tiling=tiling))


def restore_maps(function: Callable[[Tensor], Maps], mosaic: Tensor, *, phase: Phase, tiling: Tiling) -> Maps:
    """Maps of whole mosaics (N, 1, H, W) from a function of packed tiles (N, 4, h, w).

    Raises:
        ValueError: for mosaics under 4x4, and for odd sizes of a phase other than RGGB.
    """
    height, width = mosaic.shape[-2:]
    if min(height, width) < 4:
        raise ValueError(f"a mosaic needs at least 4x4 pixels, got {height}x{width}")
    # A picture smaller than the halo cannot be mirrored that far; what is missing is filled with zeros below.
    margin = min(tiling.halo, (min(height, width) - 2) // 2 * 2)
    padded, (left, _, top, _) = pad_to_even(to_rggb(mosaic, phase), margin)
    rest = tiling.halo - margin
    least = tiling.size if tiling.exact else 0
    right = max(rest, least - padded.shape[-1] - rest)
    bottom = max(rest, least - padded.shape[-2] - rest)
    # Multiples of 4, since a network may halve the packed planes once more.
    right += -(padded.shape[-1] + rest + right) % 4
    bottom += -(padded.shape[-2] + rest + bottom) % 4
    padded = F.pad(padded, (rest, right, rest, bottom))
    left, top, halo = left + rest, top + rest, tiling.halo
    full_height, full_width = padded.shape[-2:]
    out: Maps = {}
    for y in tile_starts(full_height, tiling.size, halo):
        for x in tile_starts(full_width, tiling.size, halo):
            tile = padded[..., y : y + tiling.size, x : x + tiling.size]
            # Context at a border of the picture is the margin itself, so every side of every tile loses its
            # halo.
            rows, columns = tile.shape[-2] - 2 * halo, tile.shape[-1] - 2 * halo
            for name, values in function(pack(tile)).items():
                target = out.setdefault(name, values.new_empty(len(mosaic), 3, full_height, full_width))
                target[..., y + halo : y + halo + rows, x + halo : x + halo + columns] = values[
                    ..., halo : halo + rows, halo : halo + columns
                ]
    return {
        name: from_rggb(maps[..., top : top + height, left : left + width], phase)
        for name, maps in out.items()
    }


def tile_starts(length: int, size: int, halo: int) -> list[int]:
    """Starts (multiples of 4 from a length that is one) of tiles whose inner parts cover [halo, length -
    halo)."""
    if length <= size:
        return [0]
    step = (size - 2 * halo) // 4 * 4
    return [*range(0, length - size, step), length - size]
