"""A reading of a foreign detector, tried on pictures: whether its boxes and scores can be what is served."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from nonet.runtime.boxes import LEAST
from nonet.runtime.images import DecodedImage
from nonet.runtime.network_import import NetworkRefused, NetworkUnclear
from nonet.runtime.tensors import Array
from nonet.services.recognition.detection.importing.decoding import Decode, Frame, grid
from nonet.services.recognition.detection.importing.layouts import Layout, strides_of
from nonet.services.recognition.detection.importing.reading import Reading
from nonet.services.recognition.detection.importing.served_graph import Detector, served_graph
from nonet.services.recognition.importing.trial import LARGEST_BATCH, Trial, own_pictures, pixels_of

_NEAR: Final = 3
"""Strides from a cell within which one-stage detectors put the centre of what they find there."""
_MOST_NEAR: Final = 0.9
_ROUNDING: Final = 1e-3  # of scores in half precision
_TOLERANCE: Final = 1e-3  # of scores, and of boxes in parts of the square's side


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """A reading that was run.

    Args:
        reading: the reading.
        meant: name of the way in which the outputs are meant.
        model: the graph that is served.
        network: a session with it.
        pixels: FP32 [P, 3, side, side] of our own pictures, and of the given one if there is one.
        boxes, scores: the answers to them, FP32 [P, A, 4] and [P, A, C].
        batch: how many pictures may run together.
    """

    reading: Reading
    meant: str
    model: Any
    network: Trial
    pixels: Array
    boxes: Array
    scores: Array
    batch: int


def try_reading(detector: Detector, layout: Layout, reading: Reading, picture: DecodedImage | None) -> Tried:
    """Run a reading on pictures made from nothing, and on ``picture``.

    Raises NetworkRefused if the answers cannot be those of a detector that is read so, NetworkUnclear if it
    finds nothing at all and needs a picture to prove anything.
    """
    pixels = own_pictures(reading.preprocessing)
    if picture is not None:
        pixels = np.concatenate([pixels, pixels_of(picture, reading.preprocessing)])
    tried = [_run(detector, layout, reading, name, decode, pixels) for name, decode in reading.decodes]
    if len(tried) > 1:
        fitting = [each for each in tried if _near_their_cells(each) >= _MOST_NEAR]
        if len(fitting) != 1:
            names = " and ".join(each.meant for each in tried)
            raise NetworkRefused(
                f"its boxes could be read as {names}: {len(fitting)} of these put them near their cells"
            )
        tried = fitting
    (chosen,) = tried
    _check(chosen, reading.preprocessing.crop, proved=picture is not None)
    return _batched(detector, layout, chosen)


def _run(
    detector: Detector, layout: Layout, reading: Reading, name: str, decode: Decode, pixels: Array
) -> Tried:
    """One picture at a time."""
    model = _graph(detector, layout, reading, decode, free=False)
    network = Trial(model)
    with np.errstate(all="ignore"):
        answers = [_pair(network.outputs(row[None]), 1, len(reading.labels)) for row in pixels]
    places = {boxes.shape[1] for boxes, _ in answers}
    if len(places) != 1:
        raise NetworkRefused("it gives another number of places for every picture, which has no batches")
    boxes, scores = (np.concatenate(each) for each in zip(*answers, strict=True))
    return Tried(reading, name, model, network, pixels, boxes, scores, 1)


def _graph(detector: Detector, layout: Layout, reading: Reading, decode: Decode, *, free: bool) -> Any:
    side = reading.preprocessing.crop
    table = next(spec for spec in detector.outputs if spec.name == layout.outputs[0])
    places = table.shape[1] if len(table.shape) > 1 else -1
    return served_graph(
        detector,
        layout.outputs,
        decode,
        Frame(side, len(reading.labels), strides_of(places, side)),
        layout=reading.facts.layout,
        channels=reading.facts.channels,
        free=free,
    )


def _pair(outputs: list[Array], count: int, classes: int) -> tuple[Array, Array]:
    """Boxes and scores. Raises NetworkRefused for other shapes."""
    boxes, scores = outputs
    if boxes.shape != (count, boxes.shape[1], 4) or scores.shape != (count, boxes.shape[1], classes):
        raise NetworkRefused(
            f"read so it gives boxes {list(boxes.shape)} and scores {list(scores.shape)} of {count} pictures "
            f"and {classes} classes"
        )
    return boxes, scores


def _near_their_cells(tried: Tried) -> float:
    """Which part of the boxes has its centre near the cell that found it."""
    side, places = tried.reading.preprocessing.crop, tried.boxes.shape[1]
    cells, strides = grid(side, strides_of(places, side))
    with np.errstate(all="ignore"):
        centres = (tried.boxes[..., :2].astype(np.float64) + tried.boxes[..., 2:]) / 2
        away = np.abs(centres - (cells + 0.5) * strides) / strides
    return float((away.max(axis=2) <= _NEAR).mean())


def _check(tried: Tried, side: int, *, proved: bool) -> None:
    boxes, scores = tried.boxes, tried.scores
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise NetworkRefused("its answers to pictures are not finite numbers")
    if scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING:
        raise NetworkRefused(
            f"read so its scores run from {scores.min():.2f} to {scores.max():.2f}, not from 0 to 1"
        )
    found = boxes[scores.max(axis=2) >= LEAST]
    if not len(found):
        if not proved:
            raise NetworkUnclear(
                "it finds nothing in pictures made from nothing, so that nothing is proved. What does it "
                "find? Give a picture of it with --picture",
                param="--picture",
            )
        raise NetworkRefused("it finds nothing in the picture either, so that its reading is not proved")
    sides = found[:, 2:] - found[:, :2]
    if (sides < 0).any(axis=1).mean() > 0.01:
        raise NetworkRefused("read so its boxes have their corners in the wrong order")
    if side > 4 and found.max() <= 2:
        raise NetworkRefused("read so its boxes lie between 0 and 1 and are no pixels")
    inside = ((found[:, 2:] > 0) & (found[:, :2] < side)).all(axis=1).mean()
    if inside < 0.5:
        raise NetworkRefused("read so most of its boxes lie outside of the picture")


def _batched(detector: Detector, layout: Layout, tried: Tried) -> Tried:
    """The same, with several pictures at once if that changes no answer."""
    if detector.one_picture:
        return tried
    decode = dict(tried.reading.decodes)[tried.meant]
    for model, network in _ways(detector, layout, tried, decode):
        try:
            together = _pair(network.outputs(tried.pixels), len(tried.pixels), tried.scores.shape[2])
            alone = _pair(network.outputs(tried.pixels[:1]), 1, tried.scores.shape[2])
        except NetworkRefused:
            continue
        if _same(tried, *together) and _same(tried, *alone):
            return dataclasses.replace(tried, model=model, network=network, batch=LARGEST_BATCH)
    return tried


def _ways(detector: Detector, layout: Layout, tried: Tried, decode: Decode) -> Iterator[tuple[Any, Trial]]:
    yield tried.model, tried.network
    model = _graph(detector, layout, tried.reading, decode, free=True)
    try:
        yield model, Trial(model)
    except NetworkRefused:
        return


def _same(tried: Tried, boxes: Array, scores: Array) -> bool:
    count = len(boxes)
    if boxes.shape[1] != tried.boxes.shape[1]:
        return False
    pixels = _TOLERANCE * tried.reading.preprocessing.crop
    return bool(
        np.allclose(boxes, tried.boxes[:count], rtol=_TOLERANCE, atol=pixels)
        and np.allclose(scores, tried.scores[:count], rtol=0, atol=_TOLERANCE)
    )
