"""What a foreign detector sees in a picture, and whether that is what was expected of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from nonet.runtime.boxes import best_boxes
from nonet.runtime.images import DecodedImage
from nonet.runtime.network_import import NetworkUnclear
from nonet.services.recognition.detection.detect import MOST
from nonet.services.recognition.detection.importing.reading import Reading
from nonet.services.recognition.detection.importing.trial import Tried
from nonet.services.recognition.importing.trial import pixels_of

LEAST_SCORE: Final = 0.3
LEAST_OVERLAP: Final = 0.9
_LARGEST: Final = 4 << 20
_SHOWN: Final = 5

Found = tuple[str, float, tuple[float, float, float, float]]
"""A label, a score, and corners x1, y1, x2, y2 in pixels of the picture."""


def seen(tried: Tried, reading: Reading, picture: DecodedImage) -> list[Found]:
    """What is found in the picture, best first, with a score of LEAST_SCORE at least."""
    boxes, scores = tried.network.outputs(pixels_of(picture, reading.preprocessing))
    best, values, classes = best_boxes(boxes[0], scores[0], MOST)
    corners = reading.preprocessing.in_picture(best, picture.width, picture.height)
    return [
        (reading.labels[index], float(score), _four(corner.tolist()))
        for corner, score, index in zip(corners, values, classes, strict=True)
        if score >= LEAST_SCORE
    ]


def described(found: Sequence[Found]) -> str:
    """The best of what is found, in a line."""
    shown = [
        f"{label} ({score:.2f}) at {', '.join(f'{each:.0f}' for each in box)}"
        for label, score, box in found[:_SHOWN]
    ]
    more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(shown) + more if shown else f"nothing with a score of {LEAST_SCORE} or more"


def read_answers(expect: str) -> list[tuple[str, tuple[float, float, float, float]]] | None:
    """Labels and boxes of a file of detections, as the task answers them; None if ``expect`` is a class."""
    if not expect.endswith(".json"):
        return None
    wrong = NetworkUnclear(f"--expect {expect} holds no detections with 'label' and 'box', as answers do")
    try:
        with Path(expect).open("rb") as file:
            value: Any = json.loads(file.read(_LARGEST))
    except OSError as error:
        raise NetworkUnclear(f"--expect {expect}: {(error.strerror or 'cannot be read').lower()}") from None
    except (ValueError, RecursionError):
        raise wrong from None
    listed = value.get("detections") if isinstance(value, Mapping) else value
    if not isinstance(listed, list) or not listed:
        raise wrong
    answers = []
    for each in listed:
        try:
            answers.append((str(each["label"]), _four([float(number) for number in each["box"]])))
        except (KeyError, TypeError, ValueError):
            raise wrong from None
    return answers


def expected(
    found: Sequence[Found],
    answers: Sequence[tuple[str, tuple[float, float, float, float]]] | None,
    expect: str,
    reading: Reading,
) -> None:
    """Raises NetworkUnclear if what was expected is not found."""
    if not expect:
        return
    again = "Is the picture to be prepared in another way? Say --fit, --mean, --std or --channels"
    if answers is None:
        if expect not in reading.labels:
            raise NetworkUnclear(f"--expect '{expect}' is none of its {len(reading.labels)} classes")
        if expect not in {label for label, _, _ in found}:
            raise NetworkUnclear(f"read so, the picture shows {described(found)}, no '{expect}'. {again}")
        return
    for label, box in answers:
        same = [overlap(box, each) for name, _, each in found if name == label]
        if max(same, default=0.0) < LEAST_OVERLAP:
            best = f"the nearest overlaps by {max(same):.2f}" if same else "there is none"
            corners = ", ".join(f"{each:.0f}" for each in box)
            raise NetworkUnclear(f"read so, '{label}' at {corners} is not found: {best}. {again}")


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, 0..1."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    both = float(np.clip(sides, 0, None).prod())
    areas = float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod())
    return both / (areas - both) if areas > both else 0.0


def _four(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    first, second, third, fourth = numbers
    if not all(math.isfinite(each) for each in numbers):
        raise ValueError("not finite")
    return first, second, third, fourth
