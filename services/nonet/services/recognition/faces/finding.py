"""Finds the faces of a picture, with the five landmarks by which they are brought upright."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from nonet.runtime.errors import ModelRefused
from nonet.runtime.tensors import Array

__all__ = ["FaceFinder", "FoundFace", "OnnxFaceFinder"]

_BORDER: Final = 0.25
"""Of the shorter side: the border around a picture in which nothing was found. A face that fills its
picture is unlike those a detector learns from."""

_GREY: Final = (128, 128, 128)
_OVERLAP: Final = 0.3
_MOST: Final = 1000
"""Candidates, best first, that are held against each other: a texture may look like thousands of faces."""


@dataclasses.dataclass(frozen=True, slots=True)
class FoundFace:
    """A face in pixels of its picture.

    Args:
        box: x1, y1, x2, y2, float64 [4]; may reach over the picture's edge.
        score: how sure the detector is, 0 to 1.
        landmarks: x, y of both eyes, the nose and both corners of the mouth, left before right as seen,
            float64 [5, 2].
    """

    box: Array
    score: float
    landmarks: Array

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))


class FaceFinder(Protocol):
    """What finds faces; the answers to a picture depend on nothing else."""

    def find(self, picture: Image.Image) -> list[FoundFace]:
        """The faces of an RGB picture of any size, largest first. Thread-safe."""
        ...


class OnnxFaceFinder:
    """A detector as an ONNX file: ``picture`` FP32 [1, 3, S, S], RGB levels 0 to 255, to ``scores`` [1, C],
    ``boxes`` [1, C, 4] and ``landmarks`` [1, C, 10] of C candidates, in pixels of the input.

    One thread, one picture at a time: lanes already keep the cores busy, and no answer depends on a batch.

    Args:
        content: the file.
        least: score from which a candidate is a face.

    Raises ModelRefused for a file that is no such network.
    """

    def __init__(self, content: bytes, least: float) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise ModelRefused("its face detector is not taken by ONNX Runtime") from error
        inputs: Any = self._session.get_inputs()
        outputs = {output.name for output in self._session.get_outputs()}
        shape: Sequence[Any] = inputs[0].shape if len(inputs) == 1 else ()
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not isinstance(shape[2], int):
            raise ModelRefused("its face detector does not take one FP32 [N, 3, S, S] with a fixed S")
        if not {"scores", "boxes", "landmarks"} <= outputs:
            raise ModelRefused("its face detector has no outputs 'scores', 'boxes' and 'landmarks'")
        self._name, self._side, self._least = inputs[0].name, shape[2], least

    def find(self, picture: Image.Image) -> list[FoundFace]:
        found = self._look(picture)
        if not found:
            border = max(1, round(_BORDER * min(picture.size)))
            canvas = Image.new("RGB", (picture.width + 2 * border, picture.height + 2 * border), _GREY)
            canvas.paste(picture, (border, border))
            found = [
                FoundFace(face.box - border, face.score, face.landmarks - border)
                for face in self._look(canvas)
            ]
        return sorted(found, key=lambda face: -face.area)

    def _look(self, picture: Image.Image) -> list[FoundFace]:
        """The faces of a picture, scaled to fit the upper left of the input."""
        scale = self._side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        canvas = Image.new("RGB", (self._side, self._side))
        canvas.paste(picture.resize(size, Image.Resampling.BICUBIC), (0, 0))
        pixels = np.ascontiguousarray(np.asarray(canvas).transpose(2, 0, 1)[None], dtype=np.float32)
        scores, boxes, landmarks = (
            values[0] for values in self._session.run(["scores", "boxes", "landmarks"], {self._name: pixels})
        )
        candidates = np.flatnonzero(scores >= self._least)
        order = candidates[np.argsort(-scores[candidates], kind="stable")][:_MOST]
        return [
            FoundFace(
                boxes[place].astype(np.float64) / scale,
                float(scores[place]),
                landmarks[place].astype(np.float64).reshape(5, 2) / scale,
            )
            for place in _apart(boxes, order)
        ]


def _apart(boxes: Array, order: Array) -> list[int]:
    """Non-maximum suppression: of ``order``, best first, those that no better one that is kept overlaps."""
    kept: list[int] = []
    left = order
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        low = np.maximum(boxes[left, :2], boxes[best, :2])
        high = np.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        areas = np.prod(np.maximum(boxes[left, 2:] - boxes[left, :2], 0), axis=1)
        whole = areas + float(np.prod(np.maximum(boxes[best, 2:] - boxes[best, :2], 0))) - shared
        left = left[shared <= _OVERLAP * whole]
    return kept
