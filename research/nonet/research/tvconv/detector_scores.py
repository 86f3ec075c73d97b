"""Faces cut from photographs by our own detector: how many it finds, for verification end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from nonet.research.tvconv.detector import FaceDetector
from nonet.research.tvconv.detector_training import find_faces
from nonet.research.tvconv.face_files import (
    ALIGNED,
    SETS,
    TEMPLATE,
    Faces,
    caltech_persons,
    person_split,
    portraits,
    read_pictures,
)
from nonet.runtime.images.similarity import fit_similarity, warp

_BORDER = 0.25  # of the shorter side, where nothing is found without: as the server does


def photographed_faces(root: Path, part: str, detector: FaceDetector, score: float) -> tuple[Faces, int]:
    """The largest face of each photograph of a part's persons, as the detector finds and aligns it; and how
    many photographs there are."""
    found: list[np.ndarray] = []
    persons: list[int] = []
    sets: list[int] = []
    names: list[str] = []
    photographs = 0
    for person, number, pictures in _photographs(root, part):
        for picture in pictures:
            photographs += 1
            aligned = _aligned(picture, detector, score)
            if aligned is not None:
                found.append(aligned)
                persons.append(len(names))
                sets.append(number)
        names.append(f"{SETS[number]}/{person}")
    pixels = np.stack(found) if found else np.zeros((0, ALIGNED, ALIGNED, 3), np.uint8)
    return Faces(pixels, np.array(persons), np.array(sets), tuple(names)), photographs


def _photographs(root: Path, part: str) -> Iterator[tuple[str, int, Iterator[Image.Image]]]:
    known = caltech_persons(root)
    for person in person_split(list(known))[part]:
        yield person, 0, read_pictures(root / "caltech_faces" / "scenes.zip", known[person])
    folders = {folder.name: folder for folder in sorted((root / "orl_faces").glob("s*"))}
    for person in person_split(list(folders))[part]:
        yield person, 1, portraits(folders[person])


def _aligned(picture: Image.Image, detector: FaceDetector, score: float) -> np.ndarray | None:
    side = detector.config.size
    for border in (0, max(1, round(_BORDER * min(picture.size)))):
        canvas = Image.new("RGB", (picture.width + 2 * border, picture.height + 2 * border), (128, 128, 128))
        canvas.paste(picture, (border, border))
        scale = side / max(canvas.size)
        size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
        view = Image.new("RGB", (side, side))
        view.paste(canvas.resize(size, Image.Resampling.BICUBIC), (0, 0))
        faces = find_faces(detector, np.asarray(view).transpose(2, 0, 1).copy(), score)
        if faces:
            largest = max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
            landmarks = largest.landmarks / scale - border
            return np.asarray(warp(picture, fit_similarity(landmarks, TEMPLATE), (ALIGNED, ALIGNED)))
    return None
