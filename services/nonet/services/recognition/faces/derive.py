"""Which service a face embedding network brings with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import ImageLimits, Preprocessing
from nonet.runtime.servable import HasFiles, ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.recognition.faces.finding import OnnxFaceFinder
from nonet.services.recognition.faces.servable import Alignment, FacesServable

TASK = "face_embedding"
DETECTOR_FILE = "detector.onnx"


def derive_faces(network: Servable, limits: ImageLimits) -> Sequence[Servable]:
    """``[faces.<network>]`` for a face embedding network, nothing for any other.

    Its manifest says in ``source`` what only such a network has: ``threshold``, the similarity from which two
    faces are of one person; ``alignment``, where the landmarks of an upright face are (``side`` in pixels,
    ``landmarks`` [5, 2]); and ``detector_score``, from which a candidate of ``detector.onnx``, a further file
    of the version, is a face. Without ``detector_score`` there is no detector. Raises ModelRefused if one of
    these is missing or does not fit.
    """
    info = network.info
    if info.task != TASK:
        return ()
    source: Mapping[str, Any] = info.details.get("source") or {}
    try:
        preprocessing = Preprocessing.from_manifest(info.details.get("preprocessing") or {})
    except ValueError as error:
        raise ModelRefused(str(error)) from error
    _check_fit(info, preprocessing.crop)
    threshold_of(info)
    finder, least = None, source.get("detector_score")
    if least is not None:
        if not isinstance(network, HasFiles) or not isinstance(least, float) or not 0 < least < 1:
            raise ModelRefused("its manifest's source.detector_score must lie between 0 and 1")
        finder = OnnxFaceFinder(network.read_file(DETECTOR_FILE), least)
    facts = {"detector_score": least}
    alignment = _alignment(source.get("alignment"))
    return (FacesServable(network, preprocessing, finder, alignment, limits, facts),)


def threshold_of(info: ModelInfo) -> float:
    """The similarity from which two faces are of one person. Raises ModelRefused if the manifest of a network
    does not say it."""
    source: Mapping[str, Any] = info.details.get("source") or {}
    value = source.get("threshold")
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1 <= value <= 1:
        raise ModelRefused(
            "a face embedding network must say in its manifest from which similarity (-1 to 1) two faces are "
            "of one person: source.threshold"
        )
    return float(value)


def _alignment(stated: Any) -> Alignment:
    try:
        side = int(stated["side"])
        landmarks = tuple((float(x), float(y)) for x, y in stated["landmarks"])
    except (TypeError, KeyError, ValueError):
        side, landmarks = 0, ()
    if side < 1 or len(landmarks) != 5 or len(set(landmarks)) < 2:
        raise ModelRefused(
            "a face embedding network must say in its manifest where the five landmarks of an upright face "
            "are: source.alignment with side and landmarks"
        )
    return Alignment(side, landmarks)


def _check_fit(info: ModelInfo, side: int) -> None:
    """The network must take FP32 RGB squares and give one vector for each, and batch."""
    if info.max_batch_size < 1 or len(info.inputs) != 1 or len(info.outputs) != 1:
        raise ModelRefused("a face embedding network batches, and has one input and one output")
    image, vectors = info.inputs[0], info.outputs[0]
    if image.datatype is not DataType.FP32 or not image.admits((1, 3, side, side)):
        raise ModelRefused(
            f"its input {image.datatype} {list(image.shape)} does not take FP32 [N, 3, {side}, {side}], "
            "which its preprocessing makes"
        )
    if vectors.datatype is not DataType.FP32 or len(vectors.shape) != 2 or vectors.shape[1] < 1:
        raise ModelRefused(f"its output {vectors.datatype} {list(vectors.shape)} is not FP32 [N, length]")
