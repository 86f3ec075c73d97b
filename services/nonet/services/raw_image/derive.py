"""Which service a restoration network brings with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nonet.runtime.errors import ModelRefused
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.raw_image.develop import DevelopServable
from nonet.services.raw_image.limits import RawLimits
from nonet.services.raw_image.tiling import TileForm

TASK = "raw-restoration"


def derive(network: Servable, limits: RawLimits | None = None) -> Sequence[Servable]:
    """``[develop.<network>]`` for a restoration network of Bayer mosaics, nothing for any other.

    Raises ModelRefused if its tensors are not those of packed tiles, or its manifest does not say how wide
    the halo of a tile is (``source.halo``).
    """
    info = network.info
    if info.task != TASK:
        return ()
    return (DevelopServable(network, tile_form(info), limits or RawLimits()),)


def tile_form(info: ModelInfo) -> TileForm:
    """The tiles of a network; see :func:`derive`."""
    source: Any = info.details.get("source") or {}
    halo = source.get("halo")
    if not isinstance(halo, int) or isinstance(halo, bool):
        raise ModelRefused("a restoration network must say in its manifest how wide its halo is: source.halo")
    if info.max_batch_size < 1 or len(info.inputs) != 1:
        raise ModelRefused("a restoration network batches, and has the one input of packed tiles")
    shape = info.inputs[0].shape
    side = shape[-1] if len(shape) == 4 else 0
    if info.inputs[0].datatype is not DataType.FP32 or shape != (-1, 4, side, side) or side < 1:
        raise ModelRefused(
            f"its input {info.inputs[0].datatype} {list(shape)} is not FP32 [N, 4, T/2, T/2] with a fixed T"
        )
    outputs = {output.name: output for output in info.outputs}
    for name in ("image", "std"):
        output = outputs.get(name)
        wanted = (-1, 3, 2 * side, 2 * side)
        if output is None or output.datatype is not DataType.FP32 or output.shape != wanted:
            raise ModelRefused(f"it has no output '{name}' FP32 {list(wanted)}")
    try:
        return TileForm(2 * side, halo)
    except ValueError as error:
        raise ModelRefused(str(error)) from error
