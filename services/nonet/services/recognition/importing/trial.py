"""A network tried on pictures before it is published: what it gives, and how many it takes at once."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from nonet.runtime.images import DecodedImage, Preprocessing, decode_image, preprocess
from nonet.runtime.network_import import NetworkRefused
from nonet.runtime.tensors import Array
from nonet.services.recognition.sample_photo import sample_photo

LARGEST_BATCH: Final = 16
PICTURES: Final = 4
_TOLERANCE: Final = 1e-3
_SUM_TOLERANCE: Final = 2e-3  # of probabilities in half precision


class Trial:
    """A session with a graph on the processor, in one thread, in FP32 as it is written.

    Raises NetworkRefused if ONNX Runtime does not take the graph.
    """

    def __init__(self, model: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime and protobuf raise classes of their own
            raise NetworkRefused(f"ONNX Runtime does not take it: {_short(error)}") from None
        self.input = self._session.get_inputs()[0].name
        self.output = self._session.get_outputs()[0].name

    def outputs(self, pixels: Array) -> list[Array]:
        """All outputs in the graph's order. Raises NetworkRefused if it fails."""
        try:
            return [np.asarray(each) for each in self._session.run(None, {self.input: pixels})]
        except Exception as error:
            raise NetworkRefused(f"it cannot be run on a picture: {_short(error)}") from None

    def run(self, pixels: Array) -> Array:
        """FP32 [N, classes] of FP32 [N, 3, side, side]. Raises NetworkRefused if it fails or gives another
        shape."""
        found = self.outputs(pixels)[0]
        if found.ndim != 2 or len(found) != len(pixels) or found.shape[1] < 1:
            raise NetworkRefused(
                f"it gives {list(found.shape)} for {len(pixels)} pictures, a classifier gives one row each"
            )
        return found


def own_pictures(preprocessing: Preprocessing) -> Array:
    """FP32 [PICTURES, 3, side, side] of pictures made from nothing."""
    return np.stack(
        [
            preprocess(decode_image(sample_photo(number), target=preprocessing.target), preprocessing)
            for number in range(PICTURES)
        ]
    )


def pixels_of(picture: DecodedImage, preprocessing: Preprocessing) -> Array:
    """FP32 [1, 3, side, side]."""
    pixels: Array = preprocess(picture, preprocessing)[None]
    return pixels


def each_alone(trial: Trial, pixels: Array) -> Array:
    """The answers of one picture at a time. Raises NetworkRefused if one is not finite, or all are equal."""
    answers = np.concatenate([trial.run(row[None]) for row in pixels])
    if not np.isfinite(answers).all():
        raise NetworkRefused("its answers to pictures are not finite numbers")
    if answers.shape[1] == 1:
        raise NetworkRefused("it gives one number for a picture; a classifier gives one for each class")
    if np.array_equal(answers.min(axis=0), answers.max(axis=0)):
        raise NetworkRefused("it gives the same answer to every picture")
    return answers


def largest_batch(trial: Trial, pixels: Array, alone: Array) -> int:
    """How many pictures may run together: LARGEST_BATCH if that changes no answer, else 1."""
    try:
        together = trial.run(pixels)
    except NetworkRefused:
        return 1
    scale = max(1.0, float(np.abs(alone).max()))
    return LARGEST_BATCH if np.allclose(together, alone, rtol=0, atol=_TOLERANCE * scale) else 1


def are_probabilities(answers: Array) -> bool:
    """Whether every row is one of probabilities that add up to 1, which logits hardly ever are."""
    sums = answers.astype(np.float64).sum(axis=1)
    return bool(answers.min() >= 0 and all(math.isclose(each, 1, abs_tol=_SUM_TOLERANCE) for each in sums))


def could_be_probabilities(answers: Array) -> bool:
    """Whether every number lies between 0 and 1."""
    return bool(answers.min() >= 0 and answers.max() <= 1)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."
