"""Photographs with the faces that YuNet finds in them, and random views of them to train a detector on."""

from __future__ import annotations

import io
import math
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from nonet.research.tvconv.face_files import caltech_persons, person_split, portraits
from nonet.research.tvconv.yunet import Face, YuNet
from nonet.runtime.images.similarity import warp

#: Scores of the teacher from which a face is one, and below which there is none; between them nothing is
#: learnt.
SURE, NOTHING = 0.6, 0.3
_LONGEST = 320
_TENTH = 10
_SEED = 20261130
_MOST = {"train": 600, "test": 150}
_SMALLEST, _LARGEST = 12.0, 140.0
_MIRRORED = (1, 0, 2, 4, 3)


@dataclass(frozen=True)
class Photograph:
    """A picture, at most 320 pixels long, with what the teacher finds; `source`: its data set."""

    picture: Image.Image
    faces: tuple[Face, ...]
    source: str


@dataclass(frozen=True)
class View:
    """A training picture (3, S, S) uint8 and its faces: boxes (F, 4), landmarks (F, 5, 2), in pixels, and
    whether each is sure."""

    pixels: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    sure: np.ndarray


def load_photographs(root: Path, part: str) -> list[Photograph]:
    """The photographs of `train` or `test` (a tenth of each data set by a fixed seed; of the portraits, all
    persons that no embedding is trained on). Of a larger data set the seed draws 600, or 150 for `test`."""
    teacher = YuNet(root / "yunet_face" / "yunet_n_320_320.onnx")
    found: list[Photograph] = []
    for source, pictures in _sources(root, part):
        for picture in pictures:
            picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
            found.append(Photograph(picture, tuple(teacher.find(picture, NOTHING)), source))
    return found


def _sources(root: Path, part: str) -> Iterator[tuple[str, Iterator[Image.Image]]]:
    for name in ("flickr8k_1000", "voc2012_animals"):
        archive = root / name / "images.zip"
        if archive.is_file():
            yield name, _zipped(archive, part)
    coco = sorted((root / "coco256" / "images").rglob("*.jpg"))
    yield "coco256", _opened([path for path in coco if _in_part(path.name, part)])
    persons = caltech_persons(root)
    train = set(person_split(list(persons))["train"])
    names = [
        name for person, files in persons.items() if (person in train) == (part == "train") for name in files
    ]
    yield "caltech_faces", _zipped(root / "caltech_faces" / "scenes.zip", part, names)
    folders = sorted((root / "orl_faces").glob("s*"))
    train = set(person_split([folder.name for folder in folders])["train"])
    kept = [folder for folder in folders if (folder.name in train) == (part == "train")]
    yield "orl_faces", (_bordered(picture) for folder in kept for picture in portraits(folder))


def _in_part(name: str, part: str) -> bool:
    held_back = random.Random(f"{_SEED} {name}").randrange(_TENTH) == 0
    return held_back == (part == "test")


def _zipped(archive: Path, part: str, names: list[str] | None = None) -> Iterator[Image.Image]:
    with zipfile.ZipFile(archive) as files:
        known = sorted(files.namelist())
        if names is None:
            names = drawn([name for name in known if _in_part(name, part)], _MOST[part])
        for name in names:
            yield Image.open(io.BytesIO(files.read(name))).convert("RGB")


def drawn(names: list[str], most: int) -> list[str]:
    """At most so many of the names, the same on every call."""
    return sorted(random.Random(_SEED).sample(names, min(most, len(names))))


def _opened(paths: list[Path]) -> Iterator[Image.Image]:
    for path in paths:
        with Image.open(path) as opened:
            yield opened.convert("RGB")


def _bordered(picture: Image.Image) -> Image.Image:
    """A portrait with a grey border: the teacher does not know faces that fill the picture."""
    border = picture.width // 4
    canvas = Image.new("RGB", (picture.width + 2 * border, picture.height + 2 * border), (128, 128, 128))
    canvas.paste(picture, (border, border))
    return canvas


def whole_view(photograph: Photograph, size: int) -> View:
    """The photograph as the server shows it to the detector: scaled so that its longer side is `size`."""
    scale = size / max(photograph.picture.size)
    return _view(photograph, np.array([[scale, 0, 0], [0, scale, 0]]), size)


def random_view(photograph: Photograph, size: int, dice: random.Random) -> View:
    """Part of the photograph, turned a little, maybe mirrored, grey or relit.

    Most views of a photograph with faces choose a face and the size that it gets, from 12 to 140 pixels
    alike in the logarithm; the others show the whole photograph, somewhat larger or smaller.
    """
    sure = [face for face in photograph.faces if face.score >= SURE]
    width, height = photograph.picture.size
    if sure and dice.random() < 0.7:
        face = dice.choice(sure)
        extent = math.sqrt(max(1.0, float(np.prod(face.box[2:] - face.box[:2]))))
        wanted = math.exp(dice.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
        scale = min(wanted / extent, 6.0)
        centre = (face.box[:2] + face.box[2:]) / 2
        reach = max(0.0, size / 2 - 0.4 * scale * extent)
    else:
        scale = size / max(width, height) * math.exp(dice.uniform(-0.4, 0.5))
        centre = np.array([width / 2, height / 2])
        reach = 0.15 * size
    target = np.array([size / 2 + dice.uniform(-reach, reach), size / 2 + dice.uniform(-reach, reach)])
    angle = math.radians(dice.gauss(0, 8))
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    view = _view(photograph, np.concatenate([turn, (target - turn @ centre)[:, None]], 1), size, dice)
    return _mirrored(view, size) if dice.random() < 0.5 else view


def _view(
    photograph: Photograph, transform: np.ndarray, size: int, dice: random.Random | None = None
) -> View:
    picture = warp(photograph.picture, transform, (size, size))
    if dice is not None:
        picture = _relit(picture, dice)
    count = len(photograph.faces)
    boxes, landmarks = np.zeros((count, 4)), np.zeros((count, 5, 2))
    sure = np.array([face.score >= SURE for face in photograph.faces], dtype=bool)
    for number, face in enumerate(photograph.faces):
        landmarks[number] = face.landmarks @ transform[:, :2].T + transform[:, 2]
        middle = transform[:, :2] @ ((face.box[:2] + face.box[2:]) / 2) + transform[:, 2]
        half = (face.box[2:] - face.box[:2]) / 2 * math.hypot(transform[0, 0], transform[1, 0])
        boxes[number] = np.concatenate([middle - half, middle + half])
    return View(np.asarray(picture).transpose(2, 0, 1).copy(), boxes, landmarks, sure)


def _relit(picture: Image.Image, dice: random.Random) -> Image.Image:
    if dice.random() < 0.2:
        picture = picture.convert("L").convert("RGB")
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(math.exp(dice.uniform(-0.4, 0.4)))
    return picture


def _mirrored(view: View, size: int) -> View:
    boxes, landmarks = view.boxes.copy(), view.landmarks[:, _MIRRORED].copy()
    boxes[:, [0, 2]] = size - boxes[:, [2, 0]]
    landmarks[..., 0] = size - landmarks[..., 0]
    return View(np.ascontiguousarray(view.pixels[:, :, ::-1]), boxes, landmarks, view.sure)
