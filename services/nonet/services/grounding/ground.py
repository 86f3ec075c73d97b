"""The matcher as a service: what an expression means among the regions of a picture."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from nonet.runtime.boxes import suppress
from nonet.runtime.errors import InvalidArgument, NotImplementedHere, ServingError
from nonet.runtime.extras import how_to_install
from nonet.runtime.images.regions import LOOKS as LOOKS_COUNT
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.row_service import service_info
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec
from nonet.runtime.text_states import TextEncoder, pooled
from nonet.services.grounding.expressions import check_expressions
from nonet.services.grounding.names import (
    BOX_LABELS,
    BOX_SCORES,
    BOXES,
    EXPRESSIONS,
    GROUND_PREFIX,
    IMAGE,
    LABELS,
    LOOKS,
    MOST_INSTANCES,
    NOTHING,
    SCORES,
    SIZE,
)
from nonet.services.grounding.recipe import Recipe

__all__ = ["GroundServable"]

_SAME: Final = 0.7
"""Intersection over union from which two regions are one thing, whatever the detector called them."""
_PICTURES: Final = 8
_NAMES_KEPT: Final = 4096
_RULES: Final = 1  # raise when the same regions and expressions would get another answer


class GroundServable:
    """Expressions and the regions of a picture to boxes, best first, and the share of "nothing is meant".

    Takes, for each of N pictures: ``expressions`` BYTES [N, E]; ``boxes`` FP32 [N, R, 4], corners in pixels
    of the upright picture; ``box_scores`` FP32 [N, R], the detector's, 0 where there is no region;
    ``box_labels`` BYTES [N, R], its class names; ``looks`` FP32 [N, R, A] and ``size`` INT64 [N, 2] of
    ``looks.<network>``. A gateway makes all but the first of ``image`` BYTES [N].

    Gives ``boxes`` FP32 [N, E, 16, 4] inside the picture, ``scores`` FP32 [N, E, 16] (0 after the last),
    ``labels`` BYTES [N, E, 16], ``nothing`` FP32 [N, E] and ``size``. Of regions that are one thing the best
    stays. What an expression gets depends on no other expression and no other picture.

    Args:
        network: of the family ``regions``; closed by its owner, after this service.
        recipe: of the version.
        encoder: reads expressions and names; None where it is not installed: then every request is answered
            with what to install.
    """

    def __init__(self, network: Servable, recipe: Recipe, encoder: TextEncoder | None) -> None:
        self._network, self._recipe, self._encoder = network, recipe, encoder
        self._names: dict[bytes, Array] = {}
        regions = recipe.regions
        self.info = service_info(
            network.info,
            GROUND_PREFIX,
            facts={
                "network": network.info.digest,
                "recipe": dataclasses.asdict(recipe),
                "one thing": _SAME,
                "rules": _RULES,
            },
            takes=(
                TensorSpec(EXPRESSIONS, DataType.BYTES, (-1, -1)),
                TensorSpec(IMAGE, DataType.BYTES, (-1,), optional=True),
                TensorSpec(BOXES, DataType.FP32, (-1, regions, 4), optional=True),
                TensorSpec(BOX_SCORES, DataType.FP32, (-1, regions), optional=True),
                TensorSpec(BOX_LABELS, DataType.BYTES, (-1, regions), optional=True),
                TensorSpec(LOOKS, DataType.FP32, (-1, regions, LOOKS_COUNT), optional=True),
                TensorSpec(SIZE, DataType.INT64, (-1, 2), optional=True),
            ),
            outputs=(
                TensorSpec(BOXES, DataType.FP32, (-1, -1, MOST_INSTANCES, 4)),
                TensorSpec(SCORES, DataType.FP32, (-1, -1, MOST_INSTANCES)),
                TensorSpec(LABELS, DataType.BYTES, (-1, -1, MOST_INSTANCES)),
                TensorSpec(NOTHING, DataType.FP32, (-1, -1)),
                TensorSpec(SIZE, DataType.INT64, (-1, 2)),
            ),
            max_batch_size=_PICTURES,
            details={"nothing": recipe.nothing},
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        if self._encoder is None:
            return [_missing() for _ in batch]
        asked = [self._read(request, self._encoder) for request in batch]
        parts = [part for each in asked if isinstance(each, _Asked) for part in each.rows]
        answers = iter(self._run(parts))
        return [self._answer(each, answers) if isinstance(each, _Asked) else each for each in asked]

    def sample_request(self, rows: int) -> InferRequest:
        """Of one expression a picture, about regions that are all there."""
        random = np.random.default_rng(14)
        regions = self._recipe.regions
        corners = random.uniform(0, 200, (rows, regions, 2))
        boxes = np.concatenate([corners, corners + random.uniform(20, 200, (rows, regions, 2))], 2)
        labels = [b"person"] * (rows * regions)
        return InferRequest(
            model=self.info.name,
            version=self.info.version,
            inputs=(
                Tensor.of_bytes(EXPRESSIONS, [b"the person on the left"] * rows, (rows, 1)),
                Tensor(BOXES, DataType.FP32, boxes.astype(np.float32)),
                Tensor(BOX_SCORES, DataType.FP32, np.full((rows, regions), 0.5, np.float32)),
                Tensor.of_bytes(BOX_LABELS, labels, (rows, regions)),
                Tensor(LOOKS, DataType.FP32, np.zeros((rows, regions, LOOKS_COUNT), np.float32)),
                Tensor(SIZE, DataType.INT64, np.tile(np.int64([640, 480]), (rows, 1))),
            ),
        )

    def warm_up(self) -> None:
        """The network is warm when its service is made; this loads the encoder."""
        if self._encoder is None:
            return
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """The network is closed by its owner."""

    # -- reading --------------------------------------------------------------------------------

    def _read(self, request: InferRequest, encoder: TextEncoder) -> _Asked | ServingError:
        started = time.perf_counter()
        try:
            values = {tensor.name: tensor.data for tensor in request.inputs}
            missing = next(
                (name for name in (BOXES, BOX_SCORES, BOX_LABELS, LOOKS, SIZE) if name not in values), ""
            )
            if missing:
                raise InvalidArgument(
                    f"inputs: {missing} is missing; send {IMAGE} to have it made", param=missing
                )
            texts = [check_expressions(_decoded(row, EXPRESSIONS)) for row in values[EXPRESSIONS]]
            _check_size(values[SIZE])
            rows = [
                self._row(values, picture, text, encoder)
                for picture, expressions in enumerate(texts)
                for text in expressions
            ]
        except ServingError as error:
            return error
        return _Asked(request, values, rows, time.perf_counter() - started)

    def _row(self, values: dict[str, Array], picture: int, text: str, encoder: TextEncoder) -> InferRequest:
        """One row of the network: an expression and the regions of its picture."""
        width, height = values[SIZE][picture].tolist()
        scores = values[BOX_SCORES][picture]
        mask = (scores > 0).astype(np.float32)
        boxes = (values[BOXES][picture] / np.float32([width, height, width, height])).clip(0, 1)
        names = np.stack([self._name(label, encoder) for label in values[BOX_LABELS][picture]])
        read = encoder.encode(text)
        columns = {
            "boxes": boxes * mask[:, None],
            "region_mask": mask,
            "region_scores": scores,
            "region_names": names * mask[:, None],
            "region_looks": values[LOOKS][picture] * mask[:, None],
            "aspect": np.float32(width / height),
            "tokens": read.context,
            "token_mask": read.mask,
        }
        info = self._network.info
        inputs = tuple(
            Tensor(name, DataType.FP32, np.asarray(value, np.float32)[None])
            for name, value in columns.items()
        )
        return InferRequest(info.name, inputs, version=info.version)

    def _name(self, label: bytes, encoder: TextEncoder) -> Array:
        """The state of a class name."""
        found = self._names.get(label)
        if found is None:
            if len(self._names) >= _NAMES_KEPT:
                self._names.clear()
            (text,) = _decoded([label], BOX_LABELS)
            found = self._names[label] = pooled(encoder.encode(text))
        return found

    # -- answering ------------------------------------------------------------------------------

    def _run(self, rows: Sequence[InferRequest]) -> Iterator[Outcome]:
        """The network's answer to each row, in as few executions as its largest batch allows."""
        largest = max(self._network.info.max_batch_size, 1)
        for start in range(0, len(rows), largest):
            yield from self._network.execute(rows[start : start + largest])

    def _answer(self, asked: _Asked, answers: Iterator[Outcome]) -> Outcome:
        mine = [next(answers) for _ in asked.rows]
        found: list[InferResponse] = []
        for each in mine:
            if isinstance(each, ServingError):
                return each
            assert isinstance(each, InferResponse)  # a network takes no steps
            found.append(each)
        started = time.perf_counter()
        count, expressions = asked.values[EXPRESSIONS].shape
        kept = [
            _best(asked.values, row // expressions, response.output(SCORES).data[0])
            for row, response in enumerate(found)
        ]
        shape = (count, expressions)
        labels = [label for _, _, row in kept for label in row]
        nothing = np.array([response.output(NOTHING).data[0] for response in found], np.float32)
        outputs = (
            Tensor(BOXES, DataType.FP32, np.stack([boxes for boxes, _, _ in kept]).reshape(*shape, -1, 4)),
            Tensor(SCORES, DataType.FP32, np.stack([scores for _, scores, _ in kept]).reshape(*shape, -1)),
            Tensor.of_bytes(LABELS, labels, (*shape, MOST_INSTANCES)),
            Tensor(NOTHING, DataType.FP32, nothing.reshape(shape)),
            Tensor(SIZE, DataType.INT64, asked.values[SIZE]),
        )
        timings = Timings(
            decode=asked.decode,
            compute=sum(each.timings.compute / max(each.batch_size, 1) for each in found),
            encode=time.perf_counter() - started,
        )
        return InferResponse(
            self.info.name, self.info.version, outputs, id=asked.request.id, timings=timings, batch_size=count
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was read, in ``decode`` seconds, into rows of the network, picture after picture."""

    request: InferRequest
    values: dict[str, Array]
    rows: list[InferRequest]
    decode: float


def _best(values: dict[str, Array], picture: int, shares: Array) -> tuple[Array, Array, list[bytes]]:
    """The best regions of one expression: boxes [K, 4] inside the picture, scores [K] and labels."""
    real = np.flatnonzero(values[BOX_SCORES][picture] > 0)
    boxes = np.zeros((MOST_INSTANCES, 4), np.float32)
    scores = np.zeros(MOST_INSTANCES, np.float32)
    labels = [b""] * MOST_INSTANCES
    found = values[BOXES][picture][real]
    classes = np.zeros(len(real), np.int64)
    kept = real[suppress(found, shares[real], classes, _SAME, MOST_INSTANCES)]
    edge = np.tile(values[SIZE][picture], 2)
    boxes[: len(kept)] = values[BOXES][picture][kept].clip(0, edge)
    scores[: len(kept)] = shares[kept].clip(0, 1)
    for place, region in enumerate(kept.tolist()):
        labels[place] = values[BOX_LABELS][picture][region]
    return boxes, scores, labels


def _decoded(texts: Sequence[bytes] | Array, name: str) -> list[str]:
    try:
        return [bytes(text).decode("utf-8") for text in texts]
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not valid UTF-8", param=name) from None


def _check_size(sizes: Array) -> None:
    if (sizes < 1).any():
        raise InvalidArgument(f"{SIZE} must be the width and height of the picture, 1 or more", param=SIZE)


def _missing() -> Any:
    return NotImplementedHere(
        "expressions need a text encoder that is not installed here: "
        + how_to_install("images", for_callers=True),
        param="model",
        code="EXTRA_MISSING",
    )
