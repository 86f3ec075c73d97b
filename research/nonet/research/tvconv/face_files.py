"""Aligned faces of known persons (Caltech faces, ORL), and which persons are for what. No torch."""

from __future__ import annotations

import csv
import io
import random
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nonet.research.tvconv.yunet import YuNet
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images.similarity import fit_similarity, warp

#: Side of an aligned face in pixels, and where its five landmarks go: the usual template of 112 x 112 (Deng
#: et al., "ArcFace", CVPR 2019, and the code of many others).
ALIGNED = 112
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
SETS = ("caltech_faces", "orl_faces")
PARTS = ("train", "val", "test")
_SPLIT_SEED = 20261130
_TENTH = 10
_VAL_SHARE = 6
_ORL_MARGIN = 24


@dataclass(frozen=True)
class Faces:
    """Aligned faces (N, 112, 112, 3) uint8 RGB; `persons`: number of the person of each, from 0; `sets`: the
    data set of each, as a place in SETS; `names`: of the persons."""

    pictures: np.ndarray
    persons: np.ndarray
    sets: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)


def person_split(names: list[str]) -> dict[str, list[str]]:
    """Who is in which part: a tenth of the persons in `test`, a sixth in `val`, both rounded up, by a fixed
    seed; the others in `train`. Nobody is in two."""
    shuffled = sorted(names)
    random.Random(_SPLIT_SEED).shuffle(shuffled)
    test, val = -(-len(names) // _TENTH), -(-len(names) // _VAL_SHARE)
    return {
        "test": sorted(shuffled[:test]),
        "val": sorted(shuffled[test : test + val]),
        "train": sorted(shuffled[test + val :]),
    }


def load_faces(root: Path, part: str) -> Faces:
    """The faces of one part. Raises InvalidArgument if the data are not there."""
    pictures: list[np.ndarray] = []
    persons: list[int] = []
    sets: list[int] = []
    names: list[str] = []
    for number, of_part in enumerate((_caltech(root, part), _orl(root, part))):
        for person, own in of_part.items():
            pictures += own
            persons += [len(names)] * len(own)
            sets += [number] * len(own)
            names.append(f"{SETS[number]}/{person}")
    return Faces(np.stack(pictures), np.array(persons), np.array(sets), tuple(names))


def caltech_persons(root: Path) -> dict[str, list[str]]:
    """Names of the pictures of each person of Caltech faces. Raises InvalidArgument without them."""
    index = root / "caltech_faces" / "index.csv"
    if not index.is_file():
        raise InvalidArgument(f"no caltech_faces/index.csv in {root}: name the folder with --data")
    found: dict[str, list[str]] = defaultdict(list)
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["person"]].append(row["file"])
    return dict(found)


def read_pictures(archive: Path, names: list[str]) -> Iterator[Image.Image]:
    """Pictures of a zip file, as RGB."""
    with zipfile.ZipFile(archive) as files:
        for name in names:
            yield Image.open(io.BytesIO(files.read(name))).convert("RGB")


def _caltech(root: Path, part: str) -> dict[str, list[np.ndarray]]:
    archive, known = root / "caltech_faces" / "aligned112.zip", caltech_persons(root)
    return {
        person: [np.asarray(picture) for picture in read_pictures(archive, known[person])]
        for person in person_split(list(known))[part]
    }


def _orl(root: Path, part: str) -> dict[str, list[np.ndarray]]:
    """The grey portraits, aligned by the landmarks that YuNet finds; the few without any are scaled as they
    are."""
    folders = {folder.name: folder for folder in sorted((root / "orl_faces").glob("s*"))}
    if not folders:
        raise InvalidArgument(f"no orl_faces in {root}: name the folder with --data")
    detector = YuNet(root / "yunet_face" / "yunet_n_320_320.onnx")
    return {
        person: [align_portrait(picture, detector) for picture in portraits(folders[person])]
        for person in person_split(list(folders))[part]
    }


def portraits(folder: Path) -> Iterator[Image.Image]:
    """The pictures of one person of ORL, in order."""
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as opened:
            yield opened.convert("RGB")


def align_portrait(picture: Image.Image, detector: YuNet) -> np.ndarray:
    """The face (112, 112, 3) of a portrait that it nearly fills: with a border, for detectors know faces
    inside pictures."""
    width, height = picture.size
    canvas = Image.new("RGB", (width + 2 * _ORL_MARGIN, height + 2 * _ORL_MARGIN), (128, 128, 128))
    canvas.paste(picture, (_ORL_MARGIN, _ORL_MARGIN))
    faces = detector.find(canvas, 0.4)
    if not faces:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        return np.asarray(square.resize((ALIGNED, ALIGNED), Image.Resampling.BICUBIC))
    landmarks = faces[0].landmarks - _ORL_MARGIN
    return np.asarray(warp(picture, fit_similarity(landmarks, TEMPLATE), (ALIGNED, ALIGNED)))
