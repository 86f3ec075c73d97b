"""Detection as a service: decode, fit into the network's square, one run for the whole batch, suppression."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import PIL

from nonet.runtime.boxes import CANDIDATES, LEAST, OVERLAP, best_boxes
from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.row_service import RowService, in_row, service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.recognition.sample_photo import sample_photo

SERVICE_PREFIX: Final = "detect."
INPUT: Final = "image"
BOXES: Final = "boxes"
SCORES: Final = "scores"
LABELS: Final = "labels"
SIZE: Final = "size"
MOST: Final = 100
"""Detections of one image at most: what COCO's evaluation takes."""

_RULES: Final = 1  # raise when decoding, fitting or suppression changes what an image turns into


class DetectServable(RowService[list[tuple[int, int]]]):
    """``image`` BYTES [N] to ``boxes`` FP32 [N, 100, 4], ``scores`` FP32 [N, 100], ``labels`` INT64 [N, 100]
    and ``size`` INT64 [N, 2].

    Boxes are corners x1, y1, x2, y2 in pixels of the image as it is shown (its EXIF orientation applied),
    inside it, best first. Rows of no detection have score 0 and label -1. ``size`` is width and height.
    Images are decoded as by classification; a request fails alone, with the row named if it has several.

    Args:
        network: gives ``boxes`` FP32 [N, A, 4] in pixels of its input and ``scores`` FP32 [N, A, C].
        preprocessing: how an image becomes the network's input; it must keep the whole image.
        limits: bounds for one image.
    """

    def __init__(self, network: Servable, preprocessing: Preprocessing, limits: ImageLimits) -> None:
        self._preprocessing = preprocessing
        self._limits = limits
        info = network.info
        super().__init__(
            network,
            service_info(
                info,
                SERVICE_PREFIX,
                facts={
                    "network": info.digest,
                    "preprocessing": preprocessing.to_manifest(),
                    "limits": dataclasses.asdict(limits),
                    "decoder": ["pillow", PIL.__version__, _RULES],
                    "suppression": [CANDIDATES, LEAST, OVERLAP, MOST],
                },
                takes=INPUT,
                outputs=(
                    TensorSpec(BOXES, DataType.FP32, (-1, MOST, 4)),
                    TensorSpec(SCORES, DataType.FP32, (-1, MOST)),
                    TensorSpec(LABELS, DataType.INT64, (-1, MOST)),
                    TensorSpec(SIZE, DataType.INT64, (-1, 2)),
                ),
                max_batch_size=info.max_batch_size,
                details={"preprocessing": preprocessing.to_manifest()},
            ),
        )

    def _sample(self) -> bytes:
        return sample_photo()

    def _read(self, rows: Sequence[bytes]) -> tuple[Array, list[tuple[int, int]]]:
        """The pixels [N, 3, H, W], and width and height of each image."""
        side = self._preprocessing.crop
        pixels = np.empty((len(rows), 3, side, side), dtype=np.float32)
        sizes: list[tuple[int, int]] = []
        for row, data in enumerate(rows):
            with in_row(row, len(rows), INPUT):
                decoded = decode_image(data, limits=self._limits, target=self._preprocessing.target)
            pixels[row] = preprocess(decoded, self._preprocessing)
            sizes.append((decoded.width, decoded.height))
        return pixels, sizes

    def _answer(self, outputs: Mapping[str, Array], noted: list[tuple[int, int]]) -> tuple[Tensor, ...]:
        count = len(noted)
        boxes = np.zeros((count, MOST, 4), dtype=np.float32)
        scores = np.zeros((count, MOST), dtype=np.float32)
        labels = np.full((count, MOST), -1, dtype=np.int64)
        for row, (width, height) in enumerate(noted):
            found, values, classes = best_boxes(outputs[BOXES][row], outputs[SCORES][row], MOST)
            inside = self._preprocessing.in_picture(found, width, height)
            boxes[row, : len(found)] = inside
            scores[row, : len(found)] = values
            labels[row, : len(found)] = classes
        return (
            Tensor(BOXES, DataType.FP32, boxes),
            Tensor(SCORES, DataType.FP32, scores),
            Tensor(LABELS, DataType.INT64, labels),
            Tensor(SIZE, DataType.INT64, np.array(noted, dtype=np.int64).reshape(count, 2)),
        )
