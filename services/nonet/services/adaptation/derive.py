"""Which service a regressor brings with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import ImageLimits, Preprocessing
from nonet.runtime.servable import HasFiles, ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.adaptation.calibration import read_calibration
from nonet.services.adaptation.columns import Columns
from nonet.services.adaptation.names import CALIBRATION_FILE, TASK
from nonet.services.adaptation.regress import RegressServable

__all__ = ["derive", "features_of"]


def derive(network: Servable, limits: ImageLimits) -> Sequence[Servable]:
    """``[regress.<network>]`` for a regressor, nothing for any other network.

    Raises ModelRefused if its tensors, its calibration or what its manifest says of its columns do not fit
    together.
    """
    info = network.info
    if info.task != TASK:
        return ()
    if not isinstance(network, HasFiles):
        raise ModelRefused(f"it needs the file '{CALIBRATION_FILE}' of its version")
    _check(info)
    calibration = read_calibration(network.read_file(CALIBRATION_FILE))
    columns = _columns(info)
    preprocessing = _preprocessing(info) if columns is None else None
    return (RegressServable(network, calibration, columns, preprocessing, limits),)


def features_of(source: Any) -> tuple[str, ...]:
    """Names of the columns, or channels, as the ``source`` of a manifest gives them; () if it does not."""
    named = source.get("features", ()) if isinstance(source, Mapping) else ()
    return tuple(map(str, named)) if isinstance(named, list | tuple) else ()


def _columns(info: ModelInfo) -> Columns | None:
    """What a row is; None for images. Raises ModelRefused."""
    shape = info.inputs[0].shape[1:]
    if len(shape) == 3:
        return None
    features = features_of(info.details.get("source"))
    if features and (len(features) != shape[0] or len(set(features)) != len(features)):
        raise ModelRefused(
            f"its manifest names {len(set(features))} different features, its input has {shape[0]}"
        )
    return Columns(tuple(shape), features)


def _check(info: ModelInfo) -> None:
    outputs = {output.name: output for output in info.outputs}
    if len(info.inputs) != 1 or info.max_batch_size < 1:
        raise ModelRefused("a regressor batches, and has one input")
    given = info.inputs[0]
    if given.datatype is not DataType.FP32 or len(given.shape) not in (2, 3, 4) or min(given.shape[1:]) < 1:
        raise ModelRefused(
            f"its input {given.datatype} {list(given.shape)} is not FP32 [N, F] of rows, [N, C, T] of "
            "windows or [N, 3, H, W] of images"
        )
    value, std = outputs.get("value"), outputs.get("std")
    for name, output in (("value", value), ("std", std)):
        shape = () if output is None else output.shape
        if output is None or output.datatype is not DataType.FP32 or len(shape) != 2 or shape[1] < 1:
            raise ModelRefused(f"it has no output '{name}' FP32 [N, D]")
    if value is not None and std is not None and value.shape != std.shape:
        raise ModelRefused("its outputs 'value' and 'std' have not the same shape")


def _preprocessing(info: ModelInfo) -> Preprocessing:
    fields = info.details.get("preprocessing")
    if not fields:
        raise ModelRefused("a regressor of images needs 'preprocessing' in its manifest")
    try:
        found = Preprocessing.from_manifest(fields)
    except ValueError as error:
        raise ModelRefused(str(error)) from error
    wanted = info.inputs[0]
    if not wanted.admits((1, 3, found.crop, found.crop)):
        raise ModelRefused(
            f"its input {wanted.datatype} {list(wanted.shape)} does not take FP32 [N, 3, {found.crop}, "
            f"{found.crop}], which its preprocessing makes"
        )
    return found
