"""What the services have in common whose models read a picture and an expression together, one of each at a
time."""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.images import DecodedImage, ImageLimits, decode_image
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.row_service import in_row
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.services.grounding.expressions import check_expressions
from nonet.services.grounding.names import DETECTOR, EXPRESSIONS, IMAGE, QUALITY
from nonet.services.grounding.outputs import Kept, outputs_of
from nonet.services.grounding.sample import sample_picture
from nonet.services.grounding.texts import decoded

__all__ = ["TAKES", "PictureServable"]

Prepared = TypeVar("Prepared")

TAKES = (
    TensorSpec(EXPRESSIONS, DataType.BYTES, (-1, -1)),
    TensorSpec(IMAGE, DataType.BYTES, (-1,)),
)


class PictureServable(abc.ABC, Generic[Prepared]):
    """``image`` BYTES [N] and ``expressions`` BYTES [N, E] to what every grounding service gives.

    ``Prepared`` is what a picture is made into once for all of its expressions. What an expression gets
    depends on no other expression and no other picture.

    Args:
        info: of the service.
        limits: bounds for one image.
        side: pixels that the model looks at, at most: a JPEG may be decoded as small as that; None: whole.
    """

    def __init__(self, info: ModelInfo, limits: ImageLimits, side: int | None = None) -> None:
        self.info = info
        self._limits = limits
        self._target = None if side is None else (side, side)

    @abc.abstractmethod
    def _prepare(self, picture: DecodedImage) -> Prepared:
        """The picture as the model takes it."""

    @abc.abstractmethod
    def _find(self, prepared: Prepared, text: str, size: Array) -> Kept:
        """What one expression means in it; ``size``: width and height in pixels of the picture as shown."""

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for request in batch:
            try:
                outcomes.append(self._answered(request))
            except ServingError as error:
                outcomes.append(error)
        return outcomes

    def sample_request(self, rows: int) -> InferRequest:
        expressions = Tensor.of_bytes(EXPRESSIONS, [b"the small one on the left"] * rows, (rows, 1))
        return InferRequest(self.info.name, (expressions, Tensor.of_bytes(IMAGE, [sample_picture()] * rows)))

    def warm_up(self) -> None:
        """Run once: the model, whose sizes are free, is warm only then."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing of its own to free."""

    def _answered(self, request: InferRequest) -> InferResponse:
        values = {tensor.name: tensor.data for tensor in request.inputs}
        for name in (DETECTOR, QUALITY):
            if name in request.parameters:
                raise InvalidArgument(
                    f"this model finds boxes itself, and one way: leave '{name}' out", param=name
                )
        texts = [check_expressions(decoded(row, EXPRESSIONS)) for row in values[EXPRESSIONS]]
        kept: list[Kept] = []
        sizes: list[tuple[int, int]] = []
        started = time.perf_counter()
        reading = 0.0
        for row, (data, expressions) in enumerate(zip(values[IMAGE], texts, strict=True)):
            begun = time.perf_counter()
            with in_row(row, len(texts), IMAGE):
                picture = decode_image(data, limits=self._limits, target=self._target)
            prepared = self._prepare(picture)
            sizes.append((picture.width, picture.height))
            reading += time.perf_counter() - begun
            kept += [self._find(prepared, text, np.array(sizes[-1])) for text in expressions]
        outputs = outputs_of(kept, values[EXPRESSIONS].shape, np.array(sizes, np.int64))
        timings = Timings(decode=reading, compute=time.perf_counter() - started - reading)
        return InferResponse(self.info.name, self.info.version, outputs, timings=timings)
