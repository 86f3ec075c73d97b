"""Which services a network brings with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import ImageLimits, Preprocessing
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.recognition.classify import ClassifyServable

logger = logging.getLogger(__name__)

TASK = "classification"


def derive(network: Servable, limits: ImageLimits | None = None) -> Sequence[Servable]:
    """``[classify.<network>]`` for a classification network, nothing for any other.

    A classification network without preprocessing in its manifest, or one that does not batch, is served
    as a bare network only; the log says so. ``limits`` bound the images; the defaults are for photographs.
    Raises ModelRefused if the preprocessing is not valid or does not fit the network's input and output.
    """
    info = network.info
    if info.task != TASK:
        return ()
    fields = info.details.get("preprocessing")
    if not fields or info.max_batch_size < 1:
        missing = "does not batch" if fields else "has no preprocessing in its manifest"
        logger.warning("model %s %s: it gets no classify service", info.name, missing)
        return ()
    try:
        preprocessing = Preprocessing.from_manifest(fields)
    except ValueError as error:
        raise ModelRefused(str(error)) from error
    _check_fit(info, preprocessing.crop)
    return (ClassifyServable(network, preprocessing, limits or ImageLimits()),)


def _check_fit(info: ModelInfo, side: int) -> None:
    """The network must take FP32 RGB squares of the crop's size and give one row of FP32 scores for each."""
    if len(info.inputs) != 1 or len(info.outputs) != 1:
        raise ModelRefused("a classification network has one input and one output")
    image, scores = info.inputs[0], info.outputs[0]
    if image.datatype is not DataType.FP32 or not image.admits((1, 3, side, side)):
        raise ModelRefused(
            f"its input {image.datatype} {list(image.shape)} does not take FP32 [N, 3, {side}, {side}], "
            "which its preprocessing makes"
        )
    if scores.datatype is not DataType.FP32 or len(scores.shape) != 2 or scores.shape[1] < 1:
        raise ModelRefused(f"its output {scores.datatype} {list(scores.shape)} is not FP32 [N, classes]")
    if info.labels and len(info.labels) != scores.shape[1]:
        raise ModelRefused(f"it has {len(info.labels)} labels for {scores.shape[1]} classes")
