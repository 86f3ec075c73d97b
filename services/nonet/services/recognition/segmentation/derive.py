"""Which service a segmentation network brings with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import ImageLimits
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.recognition.segmentation.pixel_masks import MaskKind
from nonet.services.recognition.segmentation.segment import SegmentServable
from nonet.services.recognition.whole_image import stated_preprocessing

TASK: Final = "segmentation"
_MOST_CLASSES: Final = 255  # an overlay has a palette of 256 colours, one of which is none


def derive(network: Servable, limits: ImageLimits | None = None) -> Sequence[Servable]:
    """``[segment.<network>]`` for a segmentation network, nothing for any other.

    A segmentation network without preprocessing in its manifest, or one that does not batch, is served as a
    bare network only; the log says so. ``limits`` bound the images; the defaults are for photographs. Raises
    ModelRefused if what the manifest says does not fit the network, or does not cover whole images.
    """
    info = network.info
    if info.task != TASK:
        return ()
    preprocessing = stated_preprocessing(info, "segment")
    if preprocessing is None:
        return ()
    if preprocessing.resize_type != "standard" or preprocessing.resize != preprocessing.crop:
        raise ModelRefused(
            "a segmentation network takes the whole image: its preprocessing must have resize_type "
            "'standard', and a crop as large as resize"
        )
    kind = _kind(info)
    _check_fit(info, preprocessing.crop, kind)
    classes = info.labels[1:] if kind == "exclusive" else info.labels
    return (SegmentServable(network, preprocessing, classes, kind, limits or ImageLimits()),)


def _kind(info: ModelInfo) -> MaskKind:
    """What the logits say: ``source.masks`` of the manifest, ``exclusive`` by default."""
    source: Any = info.details.get("source") or {}
    stated = source.get("masks", "exclusive")
    for kind in get_args(MaskKind):
        if stated == kind:
            known: MaskKind = kind
            return known
    raise ModelRefused(f"source.masks must be {' or '.join(get_args(MaskKind))}, not {str(stated)[:80]!r}")


def _check_fit(info: ModelInfo, side: int, kind: MaskKind) -> None:
    """The network must take FP32 RGB squares and give a map of FP32 logits for each of its labels."""
    if len(info.inputs) != 1 or len(info.outputs) != 1:
        raise ModelRefused("a segmentation network has one input and one output")
    image, logits = info.inputs[0], info.outputs[0]
    if image.datatype is not DataType.FP32 or not image.admits((1, 3, side, side)):
        raise ModelRefused(
            f"its input {image.datatype} {list(image.shape)} does not take FP32 [N, 3, {side}, {side}], "
            "which its preprocessing makes"
        )
    if logits.datatype is not DataType.FP32 or len(logits.shape) != 4 or min(logits.shape[1:]) < 1:
        raise ModelRefused(
            f"its output {logits.datatype} {list(logits.shape)} is not FP32 [N, classes, height, width]"
        )
    classes, least = logits.shape[1], 2 if kind == "exclusive" else 1
    if not least <= classes <= _MOST_CLASSES:
        raise ModelRefused(f"it has {classes} classes; {least} to {_MOST_CLASSES} can be served")
    if len(info.labels) != classes:
        raise ModelRefused(f"it has {len(info.labels)} labels for {classes} classes")
