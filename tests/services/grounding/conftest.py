"""A server with a grounding network made by hand and a detector that calls red, green and blue blocks cats,
dogs and horses; pictures of such blocks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.handmade_detectors import add_colour_detector
from tests.support.handmade_matchers import add_matcher
from tests.support.running_server import RunningServer, running

Box = tuple[int, int, int, int]
CHANNEL = {"cat": 0, "dog": 1, "horse": 2}
SIDE = 128
"""Of the pictures: two pixels for each of the detector's input."""


def picture(*animals: tuple[str, Box], kind: str = "PNG", size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """A black picture with a block of an animal's colour in each box."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for name, (x1, y1, x2, y2) in animals:
        pixels[y1:y2, x1:x2, CHANNEL[name]] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


CAT: Box = (0, 0, 32, 32)
DOG: Box = (96, 64, 128, 96)
BOTH = picture(("cat", CAT), ("dog", DOG))


def add_models(root: Path, animals: Sequence[str] = tuple(CHANNEL)) -> Path:
    root.mkdir(parents=True)
    add_matcher(root)
    add_colour_detector(root, "animals", animals)
    add_colour_detector(root, "colours")
    return root


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_models(tmp_path_factory.mktemp("grounding") / "models")


@pytest.fixture(scope="package")
def grounding(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {"repository": {"poll_seconds": 0.0}}
    with running(models, tmp_path_factory.mktemp("server"), settings) as started:
        yield started
