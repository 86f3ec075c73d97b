"""Figures of face verification on persons that were not trained on, for networks and for what needs none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.tvconv.baselines import eigenface_embeddings, pixel_embeddings
from nonet.research.tvconv.face_files import SETS, Faces
from nonet.research.tvconv.verification import (
    all_pairs,
    balanced_pairs,
    curve,
    errors_at,
    similarities,
    ten_fold,
    unit,
)
from nonet.runtime.images import DecodedImage, Preprocessing, preprocess

FALSE_ACCEPTS = 0.01
_BATCH = 16


@dataclass(frozen=True)
class FaceScore:
    """Verification on all pairs within the data sets: equal error rate, of each data set too; area under the
    curve; share of the pairs of one person accepted at 1 % false accepts; ten-fold accuracy on balanced
    pairs; and, at `threshold`, the mean of the shares of pairs judged rightly of one and of two persons."""

    name: str
    persons: int
    pictures: int
    pairs: int
    eer: float
    eer_by_set: dict[str, float]
    auc: float
    accepted: float
    ten_fold: float
    threshold: float
    accuracy: float


def score(name: str, embeddings: np.ndarray, faces: Faces, threshold: float) -> FaceScore:
    """The figures of embeddings (N, D) of unit length."""
    pairs = all_pairs(faces)
    found = similarities(embeddings, pairs)
    errors = curve(found, pairs.same)
    by_set = {}
    for number, data in enumerate(SETS):
        within = all_pairs(faces, number)
        by_set[data] = round(curve(similarities(embeddings, within), within.same).equal_error[0], 4)
    return FaceScore(
        name=name,
        persons=len(faces.names),
        pictures=len(faces),
        pairs=len(pairs.same),
        eer=round(errors.equal_error[0], 4),
        eer_by_set=by_set,
        auc=round(errors.area, 4),
        accepted=round(errors.accepted(FALSE_ACCEPTS), 4),
        ten_fold=round(ten_fold(embeddings, balanced_pairs(faces)), 4),
        threshold=round(threshold, 4),
        accuracy=round(1 - sum(errors_at(found, pairs.same, threshold)) / 2, 4),
    )


def best_threshold(embeddings: np.ndarray, faces: Faces) -> float:
    """The similarity at which both kinds of error are equally frequent."""
    pairs = all_pairs(faces)
    return curve(similarities(embeddings, pairs), pairs.same).equal_error[1]


def scores_of(name: str, embed: Callable[[Faces], np.ndarray], val: Faces, faces: Faces) -> FaceScore:
    """The figures of what turns faces into embeddings, its threshold chosen on `val`."""
    return score(name, embed(faces), faces, best_threshold(embed(val), val))


def baseline_scores(train: Faces, val: Faces, faces: Faces) -> list[FaceScore]:
    """Grey pixels, eigenfaces, and eigenfaces of equal variance."""
    return [
        scores_of("grey pixels 32 x 32", pixel_embeddings, val, faces),
        *(
            scores_of(name, functools.partial(eigenface_embeddings, train, whitened=whitened), val, faces)
            for name, whitened in (("eigenfaces", False), ("eigenfaces, whitened", True))
        ),
    ]


def graph_embeddings(graph: Path, faces: Faces, size: int) -> np.ndarray:
    """Embeddings (N, D) of unit length by an exported network, with pictures prepared as the server does."""
    session = open_session(graph)
    spec = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = np.stack([preprocess(decoded(picture), spec) for picture in faces.pictures])
    parts = [run(session, pixels[start : start + _BATCH])[0] for start in range(0, len(pixels), _BATCH)]
    return unit(np.concatenate(parts).astype(np.float64))


def decoded(picture: np.ndarray) -> DecodedImage:
    """A picture (H, W, 3) uint8 as the server has it."""
    return DecodedImage(Image.fromarray(picture), picture.shape[1], picture.shape[0], "PNG")


def as_facts(result: FaceScore, prefix: str = "") -> dict[str, float | int | str]:
    """The numbers of a score for a manifest, names with a prefix."""
    return {
        f"{prefix}{name}": value
        for name, value in asdict(result).items()
        if name not in ("name", "eer_by_set", "threshold")
    }
