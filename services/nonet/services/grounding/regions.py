"""Regions of a picture for a grounding request, of a served detector's answers and of how they look.

The detector is asked about the picture, at the better quality also about its mirror image and four tiles of
it; then ``looks.<network>`` says how the regions look, while ``texts.<network>`` reads the expressions. All
are models on the path of every request, so that another expression about the same picture finds their answers
in the cache.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from nonet.runtime.composition import Ask, Composition, Told
from nonet.runtime.errors import InvalidArgument, NotFound, ServingError, Unavailable
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, DataType, Tensor
from nonet.services.grounding.expressions import check_expressions
from nonet.services.grounding.names import (
    BOX_LABELS,
    BOX_SCORES,
    BOXES,
    DETECTION,
    DETECTOR,
    EXPRESSIONS,
    FRAMES,
    IMAGE,
    LABELS,
    LOOKS,
    LOOKS_PREFIX,
    QUALITY,
    SCORES,
    SIZE,
    TEXT,
    TEXTS_PREFIX,
    VIEWS,
    VIEWS_PREFIX,
)
from nonet.services.grounding.proposals import Detections, merged, of_mirror, of_tile
from nonet.services.grounding.recipe import MOST_REGIONS, recipe_of
from nonet.services.grounding.texts import decoded

__all__ = ["COMPOSITION", "QUALITIES"]

QUALITIES: Final = ("fast", "best")

Found = TypeVar("Found")
First = TypeVar("First")
Second = TypeVar("Second")


async def _complete(request: InferRequest, info: ModelInfo, ask: Ask) -> InferRequest:
    """The request with regions in place of pictures. One that brings boxes keeps them."""
    given = {tensor.name: tensor for tensor in request.inputs}
    if IMAGE not in given or all(spec.name != BOXES for spec in info.inputs):
        return request
    texts = _checked(given[EXPRESSIONS].data)
    named, quality, rest = _parameters(request)
    regions, tokens = await _both(
        _regions(given, info, ask, named, quality),
        ask((Tensor.of_bytes(TEXT, texts),), model=TEXTS_PREFIX + info.network, version=info.version),
    )
    shape = given[EXPRESSIONS].shape
    read = [
        Tensor(each.name, each.datatype, each.data.reshape(*shape, *each.shape[1:]))
        for each in tokens.response.outputs
    ]
    inputs = (given[EXPRESSIONS], *regions, *read)
    return dataclasses.replace(request, inputs=inputs, parameters=rest)


async def _regions(
    given: Mapping[str, Tensor], info: ModelInfo, ask: Ask, named: str, quality: str
) -> Sequence[Tensor]:
    """Boxes, their scores and labels, looks and sizes of the pictures; boxes that were given stay."""
    boxes = given.get(BOXES)
    if boxes is None:
        detector = named or recipe_of(info).detector
        pictures = given[IMAGE].data.tolist()
        proposed = await _all([_proposed(each, info, ask, detector, named, quality) for each in pictures])
        columns = _columns(proposed, recipe_of(info).regions)
        boxes = columns[0]
    else:
        columns = [tensor for name, tensor in given.items() if name in (BOXES, BOX_SCORES, BOX_LABELS)]
    told = await ask((given[IMAGE], boxes), model=LOOKS_PREFIX + info.network, version=info.version)
    return [*columns, *(told.response.output(name) for name in (LOOKS, SIZE))]


COMPOSITION: Final = Composition(asks=(DETECTION,), complete=_complete)


def _checked(expressions: Array) -> list[bytes]:
    """All expressions; what is none is refused before anything is computed of its picture."""
    for row in expressions:
        check_expressions(decoded(row, EXPRESSIONS))
    return [bytes(text) for text in expressions.reshape(-1)]


def _parameters(request: InferRequest) -> tuple[str, str, dict[str, Any]]:
    """The detector that the caller names ("" for none), the quality, and the other parameters."""
    rest = dict(request.parameters)
    detector, quality = rest.pop(DETECTOR, ""), rest.pop(QUALITY, QUALITIES[0])
    if not isinstance(detector, str):
        raise InvalidArgument(f"parameter '{DETECTOR}' must be a text", param=DETECTOR)
    if quality not in QUALITIES:
        raise InvalidArgument(f"parameter '{QUALITY}' must be one of {', '.join(QUALITIES)}", param=QUALITY)
    return detector, str(quality), rest


async def _proposed(
    picture: bytes, info: ModelInfo, ask: Ask, detector: str, named: str, quality: str
) -> Detections:
    """The regions of one picture, best first."""
    recipe = recipe_of(info)

    async def detected(encoded: bytes) -> tuple[Detections, tuple[float, float]]:
        try:
            told = await ask((Tensor.of_bytes(IMAGE, [encoded]),), task=DETECTION, model=detector)
        except ServingError as error:
            raise _of_detector(error, detector, named) from None
        return _detections(told, recipe.least_score)

    if quality == QUALITIES[0]:
        found, _ = await detected(picture)
        return found.select(np.arange(min(len(found.scores), recipe.regions)))
    told = await ask(
        (Tensor.of_bytes(IMAGE, [picture]),), model=VIEWS_PREFIX + info.network, version=info.version
    )
    views: list[bytes] = told.response.output(VIEWS).data[0].tolist()
    frames = told.response.output(FRAMES).data[0].astype(np.float64)
    (whole, size), *others = await _all([detected(each) for each in (picture, *views)])
    (mirror, shown), *tiles = others
    mirrored = of_tile(of_mirror(mirror, shown[0]), shown, frames[0], size)
    parts = [whole, mirrored]
    parts += [
        of_tile(found, shown, frame, size) for (found, shown), frame in zip(tiles, frames[1:], strict=True)
    ]
    return merged(parts, recipe.regions)


def _detections(told: Told, least: float) -> tuple[Detections, tuple[float, float]]:
    """What a detector found in one picture that scores at least ``least``, and the picture's size."""
    boxes, scores, labels, size = (
        told.response.output(name).data[0] for name in (BOXES, SCORES, LABELS, SIZE)
    )
    real = np.flatnonzero((labels >= 0) & (scores >= least) & (scores > 0))[:MOST_REGIONS]
    names = [told.info.labels[label] for label in labels[real].tolist()]
    width, height = size.tolist()
    return Detections(boxes[real].astype(np.float64), scores[real], names), (float(width), float(height))


def _columns(proposed: Sequence[Detections], regions: int) -> list[Tensor]:
    """Boxes [N, R, 4], scores [N, R] and labels [N, R] of N pictures, padded with nothing."""
    boxes = np.zeros((len(proposed), regions, 4), np.float32)
    scores = np.zeros((len(proposed), regions), np.float32)
    labels: list[bytes] = []
    for row, found in enumerate(proposed):
        count = len(found.scores)
        boxes[row, :count] = found.boxes
        scores[row, :count] = found.scores
        labels += [label.encode() for label in found.labels] + [b""] * (regions - count)
    return [
        Tensor(BOXES, DataType.FP32, boxes),
        Tensor(BOX_SCORES, DataType.FP32, scores),
        Tensor.of_bytes(BOX_LABELS, labels, (len(proposed), regions)),
    ]


def _of_detector(error: ServingError, detector: str, named: str) -> ServingError:
    """A detector's failure as a grounding caller is told it: its model is what they call the detector."""
    if error.param != "model":
        return error
    if isinstance(error, NotFound) and not named:
        return Unavailable(
            f"the detector '{detector}' that this model finds regions with is not served here; name another "
            f"one with '{DETECTOR}'",
            param=DETECTOR,
            code="DETECTOR_NOT_READY",
            retry_after=5.0,
        )
    return type(error)(error.message, param=DETECTOR, code=error.code, retry_after=error.retry_after)


async def _both(regions: Awaitable[First], tokens: Awaitable[Second]) -> tuple[First, Second]:
    """Two answers, asked at once; of one failure the other is withdrawn."""
    first, second = asyncio.ensure_future(regions), asyncio.ensure_future(tokens)
    try:
        await asyncio.gather(first, second)
        return first.result(), second.result()
    finally:
        first.cancel()
        second.cancel()


async def _all(questions: Sequence[Coroutine[Any, Any, Found]]) -> list[Found]:
    """All answers, asked at once: a scheduler then executes them together. Of one failure the others are
    withdrawn."""
    if len(questions) == 1:
        return [await questions[0]]
    tasks = [asyncio.ensure_future(each) for each in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
