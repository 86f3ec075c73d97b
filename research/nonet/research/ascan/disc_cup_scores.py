"""Dice of optic disc and cup: of a served graph, and of baselines that need no network.

The graph is measured as it serves: a photograph prepared by the product's own path, the answer of ONNX
Runtime enlarged to the photograph's pixels and cut at one half. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nonet.research.ascan.disc_cup_files import FOLDER, LABELS, dice, masks, photographs, picture_file
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.runtime.images import Preprocessing, decode_image, preprocess

Masks = npt.NDArray[np.bool_]
_GRID = 256


@dataclass(frozen=True)
class Score:
    """Mean Dice of each mask over the photographs of a split, and the worst photograph's."""

    name: str
    split: str
    photographs: int
    dice: tuple[float, ...]
    worst: tuple[float, ...]
    ratio_error: float  # mean absolute error of the cup-to-disc ratio of areas

    def quality(self) -> dict[str, float | int | str]:
        """As the manifest states it; `dice` orders the members of a family."""
        each = zip(("disc", "cup"), self.dice, self.worst, strict=True)
        figures: dict[str, float | int | str] = {"dice": round(float(np.mean(self.dice)), 4)}
        for name, mean, worst in each:
            figures |= {f"dice_{name}": round(mean, 4), f"dice_{name}_worst": round(worst, 4)}
        figures["cup_to_disc_area_error"] = round(self.ratio_error, 4)
        return figures | {"photographs": self.photographs, "dataset": FOLDER, "split": self.split}


def score(name: str, find: Callable[[str], Masks], root: Path, split: str) -> Score:
    """Measure what finds the masks [2, height, width] of a photograph by its name."""
    rows, errors = [], []
    for each in photographs(root, split):
        truth, found = masks(root, each), find(each)
        rows.append([dice(found[layer], truth[layer]) for layer in range(len(LABELS))])
        errors.append(abs(_ratio(found) - _ratio(truth)))
    table = np.array(rows)
    return Score(
        name,
        split,
        len(rows),
        tuple(table.mean(0).tolist()),
        tuple(table.min(0).tolist()),
        float(np.mean(errors)),
    )


def score_graph(graph: Path, spec: Preprocessing, root: Path, split: str, name: str = "") -> Score:
    """Measure a graph that gives logits [N, 2, h, w]."""
    session = open_session(graph)

    def find(photograph: str) -> Masks:
        image = decode_image(picture_file(root, photograph).read_bytes(), target=spec.target)
        logits = run(session, preprocess(image, spec)[None])[0][0]
        return np.stack([_enlarged(layer, (image.width, image.height)) > 0 for layer in logits])

    return score(name or graph.parent.parent.name, find, root, split)


def score_mean_mask(root: Path, split: str) -> Score:
    """The baseline that looks at no picture: where most training photographs have disc and cup."""
    shares = np.zeros((len(LABELS), _GRID, _GRID))
    names = photographs(root, "train")
    for name in names:
        for layer, mask in enumerate(masks(root, name).astype(np.float32)):
            shares[layer] += _enlarged(mask, (_GRID, _GRID), Image.Resampling.BOX) / len(names)
    # Where no place is marked in half of the photographs, the places marked most often, as many as are usual.
    usual = [float(np.mean(shares[layer])) for layer in range(len(LABELS))]
    cuts = [np.quantile(shares[layer], 1 - usual[layer]) for layer in range(len(LABELS))]

    def find(photograph: str) -> Masks:
        with Image.open(picture_file(root, photograph)) as opened:
            size = opened.size
        return np.stack(
            [_enlarged(share.astype(np.float32), size) > cut for share, cut in zip(shares, cuts, strict=True)]
        )

    return score("where it mostly is", find, root, split)


def score_brightest(root: Path, split: str) -> Score:
    """The baseline of a threshold: disc and cup are the brightest places of the smoothed red and green, as
    many as are usual in training, within the usual disc's size of the brightest place.
    """
    areas = np.mean([masks(root, name).mean((1, 2)) for name in photographs(root, "train")], 0)

    def find(photograph: str) -> Masks:
        with Image.open(picture_file(root, photograph)) as opened:
            picture = opened.convert("RGB")
        small = np.asarray(picture.resize((_GRID, _GRID), Image.Resampling.BOX), dtype=np.float32)
        light = small[:, :, 0] + small[:, :, 1]
        smooth = np.asarray(
            Image.fromarray(light).resize((32, 32), Image.Resampling.BOX).resize((_GRID, _GRID))
        )
        row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
        radius = 1.5 * _GRID * (areas[0] / np.pi) ** 0.5
        rows, columns = np.mgrid[:_GRID, :_GRID]
        near = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        values = np.where(near, light, -1.0)
        found = []
        for area in areas:
            cut = np.sort(values, axis=None)[-max(1, round(area * _GRID * _GRID))]
            found.append(_enlarged((values >= cut).astype(np.float32), picture.size) > 0.5)
        return np.stack(found)

    return score("the brightest places", find, root, split)


def _ratio(found: Masks) -> float:
    disc = int(found[0].sum())
    return int(found[1].sum()) / disc if disc else 0.0


def _enlarged(
    layer: npt.NDArray[np.float32],
    size: tuple[int, int],
    how: Image.Resampling = Image.Resampling.BILINEAR,
) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(layer, mode="F").resize(size, how))
