"""Which services a network brings with it."""

from __future__ import annotations

from collections.abc import Sequence

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import ImageLimits
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.recognition.classify import ClassifyServable
from nonet.services.recognition.whole_image import stated_preprocessing

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
    preprocessing = stated_preprocessing(info, "classify")
    if preprocessing is None:
        return ()
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
