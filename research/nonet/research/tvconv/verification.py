"""Are two faces of one person: pairs, their similarity, and how well a threshold tells. No torch.

The ten-fold protocol is that of Labeled Faces in the Wild as the code of TVConv runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nonet.research.tvconv.face_files import Faces

FOLDS = 10
_GRID = np.linspace(-3, 3, 20_001)


@dataclass(frozen=True)
class Pairs:
    """Pairs of faces by number: `first`, `second` (P,), and whether they show one person: `same` (P,)."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


@dataclass(frozen=True)
class Curve:
    """Every threshold and its errors: `thresholds` (T,) falling, `false_accepts` and `false_rejects` (T,) as
    shares of the pairs of different persons and of one person."""

    thresholds: np.ndarray
    false_accepts: np.ndarray
    false_rejects: np.ndarray

    @property
    def equal_error(self) -> tuple[float, float]:
        """The error rate where both are nearest to equal, and its threshold."""
        place = int(np.argmin(np.abs(self.false_accepts - self.false_rejects)))
        return float((self.false_accepts[place] + self.false_rejects[place]) / 2), float(
            self.thresholds[place]
        )

    def accepted(self, false_accepts: float) -> float:
        """Share of the pairs of one person that are accepted at no more than this share of false accepts."""
        allowed = self.false_accepts <= false_accepts
        return float(1 - self.false_rejects[allowed].min()) if allowed.any() else 0.0

    @property
    def area(self) -> float:
        """Area under the receiver operating characteristic."""
        accepts = np.concatenate([[0.0], self.false_accepts, [1.0]])
        found = np.concatenate([[0.0], 1 - self.false_rejects, [1.0]])
        return float(np.trapezoid(found, accepts))


def all_pairs(faces: Faces, within: int | None = None) -> Pairs:
    """All pairs of two pictures of one data set (of number `within` if given): between two data sets the
    camera alone would tell."""
    first, second = np.triu_indices(len(faces), 1)
    kept = faces.sets[first] == faces.sets[second]
    if within is not None:
        kept &= faces.sets[first] == within
    first, second = first[kept], second[kept]
    return Pairs(first, second, faces.persons[first] == faces.persons[second])


def balanced_pairs(faces: Faces, seed: int = 0) -> Pairs:
    """All pairs of one person and as many random ones of different persons, in random order."""
    pairs = all_pairs(faces)
    random = np.random.default_rng(seed)
    same, other = np.flatnonzero(pairs.same), np.flatnonzero(~pairs.same)
    count = min(len(same), len(other))
    chosen = np.concatenate([random.choice(same, count, False), random.choice(other, count, False)])
    random.shuffle(chosen)
    return Pairs(pairs.first[chosen], pairs.second[chosen], pairs.same[chosen])


def similarities(embeddings: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Cosines (P,) of embeddings (N, D) of unit length."""
    found: np.ndarray = np.einsum("pd,pd->p", embeddings[pairs.first], embeddings[pairs.second])
    return found


def curve(similarity: np.ndarray, same: np.ndarray) -> Curve:
    """The errors at every threshold; a pair is accepted if its similarity is at least the threshold."""
    order = np.argsort(-similarity, kind="stable")
    values, truth = similarity[order], same[order]
    last = np.flatnonzero(np.append(np.diff(values) != 0, True))  # equal similarities fall together
    found = np.cumsum(truth)[last] / max(1, int(truth.sum()))
    wrong = np.cumsum(~truth)[last] / max(1, int((~truth).sum()))
    return Curve(values[last], wrong, 1 - found)


def errors_at(similarity: np.ndarray, same: np.ndarray, threshold: float) -> tuple[float, float]:
    """Shares of false accepts and of false rejects at one threshold."""
    accepted = similarity >= threshold
    return float(accepted[~same].mean()), float((~accepted[same]).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def ten_fold(embeddings: np.ndarray, pairs: Pairs, *, accumulate: bool = False) -> float:
    """Accuracy (0..1) of the ten-fold protocol: for each fold, the mean of the other folds' embeddings is
    taken off, vectors are scaled to unit length, and the threshold on the squared distance that is best on
    the other folds judges this one.

    The grid of thresholds is that of the authors: 20,001 values from -3 to 3; of equally good ones the
    average. With `accumulate`, the means taken off add up from fold to fold, as in their code, which
    overwrites the embeddings in its loop.
    """
    left, right = embeddings[pairs.first].astype(np.float64), embeddings[pairs.second].astype(np.float64)
    folds = np.arange(len(pairs.same)) * FOLDS // len(pairs.same)
    accuracies = []
    for fold in range(FOLDS):
        others = folds != fold
        mean = np.concatenate([left[others], right[others]]).mean(0)
        here, there = unit(left - mean), unit(right - mean)
        if accumulate:
            left, right = here, there
        distance = ((here - there) ** 2).sum(1)
        threshold = _best_threshold(distance[others], pairs.same[others])
        accuracies.append(float(((distance[~others] < threshold) == pairs.same[~others]).mean()))
    return float(np.mean(accuracies))


def _best_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The average of the thresholds of the grid with the most right answers."""
    near = np.searchsorted(np.sort(distance[same]), _GRID, side="left")
    far = np.searchsorted(np.sort(distance[~same]), _GRID, side="left")
    right = near + (int((~same).sum()) - far)
    return float(_GRID[right == right.max()].mean())
