"""YuNet, a published face detector with five landmarks: it labels the pictures that our own one learns from.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. Apache-2.0;
read from the data folder, never shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nonet.research.fasternet.onnx_session import open_session

SIDE = 320
STRIDES = (8, 16, 32)
_OVERLAP = 0.3


@dataclass(frozen=True)
class Face:
    """A face in pixels of its picture: box x1, y1, x2, y2; score 0..1; landmarks (5, 2): the eye on the
    left of the picture, the other eye, nose, the corner of the mouth on the left, the other corner."""

    box: np.ndarray
    score: float
    landmarks: np.ndarray


class YuNet:
    """The detector in `path`, an ONNX file. Raises what ONNX Runtime raises for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    def find(self, picture: Image.Image, score: float = 0.5) -> list[Face]:
        """The faces of an RGB picture, best first."""
        scale = SIDE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        canvas = Image.new("RGB", (SIDE, SIDE))
        canvas.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (0, 0))
        pixels = np.asarray(canvas, dtype=np.float32)[:, :, ::-1].transpose(2, 0, 1)[None]
        names = [output.name for output in self._session.get_outputs()]
        answers = dict(
            zip(names, self._session.run(None, {"input": np.ascontiguousarray(pixels)}), strict=True)
        )
        found: list[Face] = []
        for stride in STRIDES:
            found += self._of_stride(answers, stride, score, scale)
        return best_apart(found)

    @staticmethod
    def _of_stride(answers: dict[str, np.ndarray], stride: int, least: float, scale: float) -> list[Face]:
        scores = np.sqrt(np.clip(answers[f"cls_{stride}"] * answers[f"obj_{stride}"], 0, 1)).reshape(-1)
        boxes = answers[f"bbox_{stride}"].reshape(-1, 4)
        points = answers[f"kps_{stride}"].reshape(-1, 5, 2)
        columns = SIDE // stride
        faces = []
        for cell in np.flatnonzero(scores >= least):
            grid = np.array([cell % columns, cell // columns], dtype=np.float64)
            centre = (boxes[cell, :2] + grid) * stride / scale
            half = np.exp(boxes[cell, 2:]) * stride / scale / 2
            box = np.concatenate([centre - half, centre + half])
            faces.append(Face(box, float(scores[cell]), (points[cell] + grid) * stride / scale))
        return faces


def best_apart(faces: list[Face]) -> list[Face]:
    """Non-maximum suppression: the best first, and none that overlaps a better one by more than 0.3 (IoU)."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda each: -each.score):
        if all(overlap(face.box, other.box) <= _OVERLAP for other in kept):
            kept.append(face)
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    whole = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / whole if whole > 0 else 0.0
