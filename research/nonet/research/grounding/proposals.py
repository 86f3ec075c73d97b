"""Regions of real photographs: what a detector finds in one pass, or also in tiles and in the mirror.

The published detector runs as the server runs it. YOLOX-Nano (Apache-2.0, not shipped) shows what a better
one would give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from nonet.research.detection.teacher import Teacher
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.grounding.lessons import REGIONS
from nonet.research.grounding.scenes import Floats, Scene
from nonet.runtime.boxes import best_boxes, suppress
from nonet.runtime.images import Preprocessing, preprocess
from nonet.runtime.images.decode import DecodedImage
from nonet.runtime.images.regions import looks_of
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.manifest import read_manifest

__all__ = ["OWN", "Find", "Proposals", "propose", "published_detector", "yolox"]

OWN = "efficientnet_lite0_coco"
_OVERLAP = 0.6
_TILE = 0.6  # of each side
_FOUND = 100
_LEAST = 0.01

#: Boxes (N, 4) in pixels, classes (N,) and scores (N,) of a picture.
Find = Callable[[Image.Image], tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class Proposals:
    """A detector and how much of it is used: scores from ``least``, in one pass or at its best."""

    name: str
    find: Find
    least: float


def published_detector(repository: Path, name: str = OWN) -> Find:
    """A published detector. Raises FileNotFoundError if the repository has none of this name."""
    folder = read_model(repository, name)
    if folder is None or not folder.versions:
        raise FileNotFoundError(f"no {name} in the repository: it finds the regions")
    path = folder.versions[-1].path
    manifest = read_manifest(path / "manifest.json")
    assert manifest is not None
    assert manifest.preprocessing is not None
    spec = Preprocessing.from_manifest(manifest.preprocessing.model_dump())
    session = open_session(path / "model.onnx")

    def find(picture: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        decoded = DecodedImage(picture, picture.width, picture.height, "JPEG")
        outputs = session.run(["boxes", "scores"], {"image": preprocess(decoded, spec)[None]})
        boxes, scores, classes = best_boxes(np.asarray(outputs[0])[0], np.asarray(outputs[1])[0], _FOUND)
        return spec.in_picture(boxes, picture.width, picture.height), classes, scores

    return find


def yolox(root: Path) -> Find:
    """YOLOX-Nano. Raises FileNotFoundError if its file is absent."""
    graph = root / "yolox_nano_coco" / "yolox_nano.onnx"
    if not graph.is_file():
        raise FileNotFoundError(f"no {graph}")
    teacher = Teacher(graph)
    return lambda picture: teacher.find(picture, _LEAST)


def propose(picture: Image.Image, name: str, find: Find, least: float, best: bool = False) -> Scene:
    """The picture's regions, at most :data:`REGIONS`, those with the highest scores.

    Args:
        picture: RGB, upright.
        name: of the picture.
        least: the lowest score.
        best: whether the mirrored picture and four tiles are looked at too.
    """
    size = np.array([picture.width, picture.height] * 2, np.float32)
    boxes, classes, scores = find(picture)
    if best:
        parts = [(boxes, classes, scores), _in_mirror(picture, find), *_in_tiles(picture, find)]
        boxes, classes, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = np.flatnonzero(scores >= least)
    boxes, classes, scores = boxes[kept], classes[kept], scores[kept]
    kept = suppress(boxes, scores, classes, _OVERLAP, REGIONS)
    fractions: Floats = (boxes[kept] / size).clip(0, 1).astype(np.float32)
    looks = looks_of(np.asarray(picture), fractions)
    return Scene(
        name,
        fractions,
        classes[kept].astype(np.int64),
        scores[kept].astype(np.float32),
        looks,
        picture.width / picture.height,
        marked=False,
    )


def _in_mirror(picture: Image.Image, find: Find) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, classes, scores = find(ImageOps.mirror(picture))
    turned = boxes.copy()
    turned[:, 0], turned[:, 2] = picture.width - boxes[:, 2], picture.width - boxes[:, 0]
    return turned, classes, scores


def _in_tiles(picture: Image.Image, find: Find) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What is found in four overlapping corners of the picture, unless a tile's inner edge cuts it off."""
    width, height = round(picture.width * _TILE), round(picture.height * _TILE)
    found = []
    for left in (0, picture.width - width):
        for top in (0, picture.height - height):
            boxes, classes, scores = find(picture.crop((left, top, left + width, top + height)))
            margin = 0.02 * np.array([width, height])
            cut = (
                ((boxes[:, 0] < margin[0]) & (left > 0))
                | ((boxes[:, 1] < margin[1]) & (top > 0))
                | ((boxes[:, 2] > width - margin[0]) & (left + width < picture.width))
                | ((boxes[:, 3] > height - margin[1]) & (top + height < picture.height))
            )
            whole = ~cut
            found.append((boxes[whole] + np.array([left, top] * 2), classes[whole], scores[whole]))
    return found
