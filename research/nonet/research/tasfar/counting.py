"""The counting task: red cells in a photograph of stained blood, from the slides photographed first to those
photographed later.

The paper counts people in crowds; such pictures are not to be had here. Data: BCCD (MIT), boxes around cells.
Its photographs are numbered in the order in which they were taken; from number 200 on they are darker and
tinted otherwise. A quarter of a photograph, scaled down, is an input; its label is the number of cells in it,
of cells on its edge the part within. Many red cells carry no box, so errors hold for the boxes that are
there; photographs without any are left out.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkSpec
from nonet.research.tasfar.tasks import Domain, Domains, RegressionTask, SourceTraining
from nonet.runtime.repository.manifest import DataSource

__all__ = ["COUNTING", "load_counting"]

#: Pixels of an input: a quarter of a photograph of 640 by 480, a quarter as large.
HEIGHT, WIDTH = 60, 80
_SCALE: Final = 4
_CELL: Final = 4  # pixels of an input in a cell of its density map
_FIRST_OF_TARGET: Final = 200
_KIND: Final = "RBC"


def load_counting(root: Path) -> Domains:
    """Both domains; a photograph is a unit. Raises FileNotFoundError if `bccd` is absent."""
    folder = root / "bccd"
    names = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    if not names:
        raise FileNotFoundError(f"there are no photographs in {folder}")
    parts: tuple[list[Domain], list[Domain]] = ([], [])
    for name in names:
        boxes = cells_of(folder / "Annotations" / f"{name}.xml")
        if len(boxes):
            number = int(name.rsplit("_", 1)[1])
            with Image.open(folder / "JPEGImages" / f"{name}.jpg") as picture:
                parts[number >= _FIRST_OF_TARGET].append(quarters(picture, boxes, number))
    source, target = (
        Domain(
            np.concatenate([each.inputs for each in part]),
            np.concatenate([each.labels for each in part]),
            np.concatenate([each.units for each in part]),
            np.concatenate([each.extra for each in part]),
        )
        for part in parts
    )
    return Domains(source, target)


def cells_of(path: Path) -> NDArray[np.float64]:
    """Boxes [N, 4] of the red cells in a photograph: left, top, right, bottom, in pixels; empty ones left
    out."""
    found = []
    for each in ElementTree.parse(path).iter("object"):
        if each.findtext("name") == _KIND:
            box = [float(each.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")]
            if box[2] > box[0] and box[3] > box[1]:
                found.append(box)
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def quarters(picture: Image.Image, boxes: NDArray[np.float64], number: int) -> Domain:
    """The four quarters of a photograph as pictures [4, 3, 60, 80] of 0 to 1, with their counts and their
    density maps [4, 15, 20]."""
    small = picture.convert("RGB").resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255
    density = density_of(boxes / (_SCALE * _CELL), (2 * HEIGHT // _CELL, 2 * WIDTH // _CELL))
    down, across = HEIGHT // _CELL, WIDTH // _CELL
    corners = [(row, column) for row in (0, 1) for column in (0, 1)]
    pictures = [values[:, r * HEIGHT : (r + 1) * HEIGHT, c * WIDTH : (c + 1) * WIDTH] for r, c in corners]
    maps = np.array([density[r * down : (r + 1) * down, c * across : (c + 1) * across] for r, c in corners])
    return Domain(
        np.array(pictures),
        maps.sum((1, 2), dtype=np.float64)[:, None],
        np.full(4, number, np.int64),
        maps.astype(np.float32),
    )


def density_of(boxes: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Each box, in cells of the map, spreads one over its cells as a normal distribution whose deviation is a
    quarter of its sides; what falls outside the map is not counted."""
    density = np.zeros(shape)
    down, across = (np.arange(size) + 0.5 for size in shape)
    for left, top, right, bottom in boxes:
        y = np.exp(-0.5 * ((down - (top + bottom) / 2) / ((bottom - top) / 4)) ** 2)
        x = np.exp(-0.5 * ((across - (left + right) / 2) / ((right - left) / 4)) ** 2)
        # Over all of space, so that a cell on the picture's edge counts by its part within.
        whole = 2 * np.pi * (bottom - top) / 4 * (right - left) / 4
        density += np.outer(y, x) / whole
    return density


def _count_error(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(np.abs(found - wanted).mean())


COUNTING = RegressionTask(
    name="counting",
    title="red cells in a quarter of a photograph, from one series of slides to a later one",
    load=load_counting,
    spec=NetworkSpec("density_cnn", (3, HEIGHT, WIDTH), widths=(8, 12, 16, 24), tail=()),
    training=SourceTraining(epochs=50, batch=32, decay=0.01, density_weight=300.0),
    recipe=Recipe(width=0.25, rate=1e-4, epochs=10, batch=64, squared_root=False),
    metric=_count_error,
    metric_name="mean absolute error, cells",
    outputs=("red cells",),
    units=("cells",),
    features=("red (0 to 1)", "green (0 to 1)", "blue (0 to 1)"),
    data=(
        DataSource(
            name="bccd (photographs 0 to 199)", licence="MIT", origin="Shenggan/BCCD_Dataset on GitHub"
        ),
    ),
    licence="MIT, as the data",
    credit="Trained by Nonet from random weights; photographs of BCCD, by cosmicad and akshaylamba.",
)
