"""Which detection service a network brings with it."""

from __future__ import annotations

from collections.abc import Sequence

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import ImageLimits
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.recognition.detection.detect import BOXES, SCORES, DetectServable
from nonet.services.recognition.whole_image import stated_preprocessing

TASK = "detection"


def derive(network: Servable, limits: ImageLimits | None = None) -> Sequence[Servable]:
    """``[detect.<network>]`` for a detection network, nothing for any other.

    A detection network without preprocessing in its manifest, or one that does not batch, is served as a bare
    network only; the log says so. Raises ModelRefused if the preprocessing is not valid or does not fit the
    network's input and outputs.
    """
    info = network.info
    if info.task != TASK:
        return ()
    preprocessing = stated_preprocessing(info, "detect")
    if preprocessing is None:
        return ()
    if not preprocessing.keeps_whole:
        raise ModelRefused(
            "a detection network needs the whole image: resize_type must be fit_to_window, "
            "fit_to_window_letterbox, or standard with crop equal to resize"
        )
    _check_fit(info, preprocessing.crop)
    return (DetectServable(network, preprocessing, limits or ImageLimits()),)


def _check_fit(info: ModelInfo, side: int) -> None:
    """FP32 RGB squares in; FP32 boxes [N, A, 4] and scores [N, A, C] out, a label for each class."""
    if len(info.inputs) != 1:
        raise ModelRefused("a detection network has one input")
    image = info.inputs[0]
    if image.datatype is not DataType.FP32 or not image.admits((1, 3, side, side)):
        raise ModelRefused(
            f"its input {image.datatype} {list(image.shape)} does not take FP32 [N, 3, {side}, {side}], "
            "which its preprocessing makes"
        )
    outputs = {spec.name: spec for spec in info.outputs}
    if set(outputs) != {BOXES, SCORES}:
        raise ModelRefused(f"a detection network has the outputs {BOXES} and {SCORES}, not {sorted(outputs)}")
    boxes, scores = outputs[BOXES], outputs[SCORES]
    if any(spec.datatype is not DataType.FP32 or len(spec.shape) != 3 for spec in (boxes, scores)):
        raise ModelRefused("its outputs must be FP32 [N, places, 4] and FP32 [N, places, classes]")
    if boxes.shape[2] != 4 or boxes.shape[1] != scores.shape[1] or scores.shape[2] < 1:
        raise ModelRefused(
            f"its outputs {list(boxes.shape)} and {list(scores.shape)} are not [N, places, 4] and "
            "[N, places, classes] of the same places"
        )
    if len(info.labels) != scores.shape[2]:
        raise ModelRefused(f"it has {len(info.labels)} labels for {scores.shape[2]} classes")
