"""Classification as a service: decode, preprocess, one run of the network for the whole batch, softmax."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import PIL

from nonet.runtime.images import ImageLimits, Preprocessing, decode_image, preprocess
from nonet.runtime.row_service import RowService, in_row, service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.recognition.sample_photo import sample_photo

SERVICE_PREFIX: Final = "classify."
INPUT: Final = "image"
OUTPUT: Final = "scores"

_RULES: Final = 2  # raise when decoding or preprocessing changes what an image turns into


class ClassifyServable(RowService[None]):
    """``image`` BYTES [N] to ``scores`` FP32 [N, C].

    Images are decoded in the lane's own thread, one after the other: lanes already keep the cores busy, and a
    pool of decoders would compete with the networks. A request fails alone, as a whole, with the row named if
    it has several. The rows of all sound requests run through the network together, in as few executions as
    its largest batch allows. Scores are the softmax of the logits, computed in double precision.

    Args:
        network: the network; closed by its owner, after this service.
        preprocessing: how an image becomes the network's input.
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
                },
                takes=INPUT,
                outputs=(TensorSpec(OUTPUT, DataType.FP32, (-1, info.outputs[0].shape[1])),),
                max_batch_size=info.max_batch_size,
                details={"preprocessing": preprocessing.to_manifest()},
            ),
        )

    def _sample(self) -> bytes:
        return sample_photo()

    def _read(self, rows: Sequence[bytes]) -> tuple[Array, None]:
        """The pixels [N, 3, H, W]."""
        side = self._preprocessing.crop
        pixels = np.empty((len(rows), 3, side, side), dtype=np.float32)
        for row, data in enumerate(rows):
            with in_row(row, len(rows), INPUT):
                decoded = decode_image(data, limits=self._limits, target=self._preprocessing.target)
            pixels[row] = preprocess(decoded, self._preprocessing)
        return pixels, None

    def _answer(self, outputs: Mapping[str, Array], noted: None) -> tuple[Tensor, ...]:
        (logits,) = outputs.values()
        return (Tensor(OUTPUT, DataType.FP32, softmax(logits)),)


def softmax(logits: Array) -> Array:
    """Probabilities FP32 [N, C] of logits [N, C], without overflow; each row depends on that row alone."""
    scores = np.empty(logits.shape, dtype=np.float32)
    for row, values in enumerate(logits):
        exponentials = np.exp(values.astype(np.float64) - values.max())
        scores[row] = exponentials / exponentials.sum()
    return scores
