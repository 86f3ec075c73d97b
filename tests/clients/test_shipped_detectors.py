"""The detectors that come with the project, over HTTP on pictures that they were not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nonet.research.detection import pictures
from nonet.research.detection.pictures import Annotated
from nonet.research.detection.scoring import ANIMALS, average_precision
from tests.support.running_server import RunningServer, running

ROOT = Path(__file__).parents[2]
Found = tuple[Annotated, tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(ROOT / "model_repository", tmp_path_factory.mktemp("shipped")) as started:
        yield started


def asked(server: RunningServer, model: str, names: list[str], some: Iterable[Annotated]) -> Iterator[Found]:
    """What the server finds, at the lowest score."""
    for each in some:
        reply = server.http.post(
            "/v1/detect",
            files={"image": (each.name, each.content)},
            data={"model": model, "score_threshold": "0.01"},
        )
        assert reply.status_code == 200, reply.text
        found = reply.json()["detections"]
        yield (
            each,
            (
                np.array([one["box"] for one in found], dtype=float).reshape(-1, 4),
                np.array([names.index(one["label"]) for one in found], dtype=int),
                np.array([one["score"] for one in found], dtype=float),
            ),
        )


def test_who_names_no_model_gets_everyday_things_not_cells(shipped: RunningServer) -> None:
    photo = (ROOT / "docs/examples/bananas.jpg").read_bytes()
    answer = shipped.http.post("/v1/detect", content=photo, headers={"Content-Type": "image/jpeg"}).json()
    assert answer["model"] == "efficientnet_lite0_coco"


def test_animals_and_people_are_found(shipped: RunningServer, data_root: Path) -> None:
    names = pictures.coco_names(data_root)
    known = (each for each in pictures.voc_animals(data_root, "test") if each.complete)
    seen = list(asked(shipped, "coco", names, itertools.islice(known, 80)))
    animals = average_precision(seen, [names.index(name) for name in ANIMALS])
    assert animals["ap50"] > 0.5  # 0.66 on all 316


def test_blood_cells_are_found(shipped: RunningServer, data_root: Path) -> None:
    seen = list(asked(shipped, "cells", list(pictures.CELLS), pictures.cells(data_root, "test")))
    assert average_precision(seen)["ap50"] > 0.8  # 0.86


def test_debris_is_found(shipped: RunningServer, data_root: Path) -> None:
    names = pictures.debris_names(data_root)
    some = itertools.islice(pictures.debris(data_root, "test"), 0, None, 3)
    seen = list(asked(shipped, "fod", names, some))
    assert average_precision(seen, one_class=True)["ap50"] > 0.35
