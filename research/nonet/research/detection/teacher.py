"""YOLOX-Nano as a teacher: what a published detector of the 80 COCO classes finds in pictures without boxes.

Its graph is used under Apache-2.0 (Megvii; export by Kazuhito00) and is not shipped. Input: BGR levels, the
picture placed top left on grey; raw outputs for strides 8, 16, 32 (Z. Ge et al., "YOLOX", arXiv 2107.08430).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from nonet.runtime.boxes import suppress

SIDE = 416
GREY = 114
OVERLAP = 0.45


class Teacher:
    """Finds objects in one picture after the other.

    Args:
        graph: the published `yolox_nano.onnx`.
        threads: of ONNX Runtime.
    """

    def __init__(self, graph: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        cells, strides = [], []
        for stride in (8, 16, 32):
            count = SIDE // stride
            y, x = np.mgrid[:count, :count]
            cells.append(np.stack((x, y), -1).reshape(-1, 2))
            strides.append(np.full((count * count, 1), stride))
        self._cells = np.concatenate(cells).astype(np.float32)
        self._strides = np.concatenate(strides).astype(np.float32)

    def find(self, picture: Image.Image, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (N, 4) in pixels of the picture, classes (N,) and scores (N,), best first, each at least
        `least`; overlapping boxes of one class are one.
        """
        scale = SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        canvas = np.full((SIDE, SIDE, 3), GREY, dtype=np.float32)
        canvas[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
        tensor = np.ascontiguousarray(canvas[None, :, :, ::-1].transpose(0, 3, 1, 2))
        (raw,) = self._session.run(None, {"images": tensor})
        raw = raw[0]
        centre = (raw[:, :2] + self._cells) * self._strides
        half = np.exp(raw[:, 2:4]) * self._strides / 2
        scores = raw[:, 4:5] * raw[:, 5:]
        place, classes = np.nonzero(scores >= least)
        boxes = np.concatenate((centre - half, centre + half), axis=1)[place]
        values = scores[place, classes]
        kept = suppress(boxes, values, classes, OVERLAP)
        limits = np.array([picture.width, picture.height] * 2, dtype=np.float32)
        return np.clip(boxes[kept] / scale, 0, limits), classes[kept], values[kept]
