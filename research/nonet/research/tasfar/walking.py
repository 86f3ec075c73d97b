"""The walking task: how far and where a person went in two seconds, from a phone's motion sensors; from the
walks in one building to those in another.

Data: walks with surveyed waypoints by XYZ10, Inc. (MIT). The truth is interpolated between waypoints. Sensors
are given in the phone's estimate of the world (east, north, up); the floor plans stand at an unknown angle to
it, one for each building, which is taken from the directions of all its walks and turns the labels alone.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkSpec
from nonet.research.tasfar.tasks import Domain, Domains, RegressionTask, SourceTraining
from nonet.runtime.repository.manifest import DataSource

__all__ = ["SAMPLES", "WALKING", "load_walking", "windows_of"]

#: Samples of a window, at 50 Hz.
SAMPLES: Final = 100
_STRIDE: Final = 100
_GRAVITY: Final = 9.81
CHANNELS: Final = (
    "acceleration east (m/s²)",
    "acceleration north (m/s²)",
    "acceleration up without gravity (m/s²)",
    "turning about east (rad/s)",
    "turning about north (rad/s)",
    "turning about up (rad/s)",
    "direction of the phone's top, east",
    "direction of the phone's top, north",
)


def load_walking(root: Path) -> Domains:
    """Windows of two seconds, one after the other. A walk is a unit. Raises FileNotFoundError if `xyz10_pdr`
    is absent."""
    import pyarrow.parquet

    folder = root / "xyz10_pdr"
    if not (folder / "imu.parquet").is_file():
        raise FileNotFoundError(f"there is no {folder / 'imu.parquet'}")
    table = pyarrow.parquet.read_table(folder / "imu.parquet")
    names = [f"{sensor}_{axis}" for sensor in ("acc", "gyr", "rot") for axis in "xyz"]
    sensors = np.stack([table[name].to_numpy() for name in names], 1).astype(np.float64)
    walk, at = table["path"].to_numpy(), table["t_ms"].to_numpy().astype(np.float64)
    marks: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    with gzip.open(folder / "waypoints.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            marks[int(row["path_id"])].append((float(row["t_ms"]), float(row["x"]), float(row["y"])))
    with gzip.open(folder / "paths.csv.gz", "rt") as file:
        sites = {int(row["path_id"]): row["site"] for row in csv.DictReader(file)}
    starts = np.flatnonzero(np.r_[True, walk[1:] != walk[:-1]])
    parts: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float64], int]]] = defaultdict(list)
    for first, last in zip(starts, [*starts[1:], len(walk)], strict=True):
        number = int(walk[first])
        found = windows_of(sensors[first:last], at[first:last], np.array(sorted(marks[number])))
        if len(found[0]):
            parts[sites[number]].append((*found, number))
    return Domains(_domain(parts["site1"]), _domain(parts["site2"]))


def windows_of(
    sensors: NDArray[np.float64], at: NDArray[np.float64], marks: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Of one walk: windows [N, 8, 100] and displacements [N, 2] in metres of the floor plan.

    Args:
        sensors: [T, 9] acceleration, turning and rotation vector, in the phone's axes.
        at: [T], ms.
        marks: [M, 3] of waypoints: ms, x, y.
    """
    turn = rotations(sensors[:, 6:])
    world = np.einsum("tij,tj->ti", turn, sensors[:, :3])
    world[:, 2] -= _GRAVITY
    spin = np.einsum("tij,tj->ti", turn, sensors[:, 3:6])
    channels = np.concatenate([world, spin, turn[:, :2, 1]], 1).astype(np.float32)
    where = np.stack([np.interp(at, marks[:, 0], marks[:, column]) for column in (1, 2)], 1)
    windows, labels = [], []
    for first in range(0, len(at) - SAMPLES, _STRIDE):
        last = first + SAMPLES
        if at[first] < marks[0, 0] or at[last] > marks[-1, 0] or not 1_800 < at[last] - at[first] < 2_200:
            continue
        windows.append(channels[first:last].T)
        labels.append(where[last] - where[first])
    return np.array(windows, np.float32).reshape(-1, len(CHANNELS), SAMPLES), np.array(labels).reshape(-1, 2)


def rotations(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vectors [T, 3], the vector part of a unit quaternion -> matrices [T, 3, 3] from the phone's
    axes to the world's."""
    x, y, z = vectors.T
    w = np.sqrt(np.clip(1 - (vectors**2).sum(1), 0, None))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _domain(parts: list[tuple[NDArray[np.float32], NDArray[np.float64], int]]) -> Domain:
    windows = np.concatenate([each[0] for each in parts])
    labels = np.concatenate([each[1] for each in parts])
    units = np.concatenate([np.full(len(each[0]), each[2]) for each in parts])
    # The plan's angle: where people went, less where the top of the phone they held before them pointed.
    ahead = windows[:, 6:8].mean(2)
    angle = np.angle(((labels @ [1, 1j]) * np.conj(ahead @ [1, 1j])).sum())
    turned = (labels @ [1, 1j]) * np.exp(-1j * angle)
    return Domain(windows, np.stack([turned.real, turned.imag], 1), units.astype(np.int64))


def _step_error(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(np.sqrt(((found - wanted) ** 2).sum(1)).mean())


WALKING = RegressionTask(
    name="walking",
    title="displacement in two seconds, from one building to another",
    load=load_walking,
    spec=NetworkSpec("window_cnn", (len(CHANNELS), SAMPLES), 2, widths=(16, 24, 48), tail=(48,), clip=6.0),
    training=SourceTraining(epochs=30, batch=128, decay=0.01),
    # People walk alike in both buildings: the site's map alone says nothing that the network does not know,
    # and training with dropout shortens its steps.
    recipe=Recipe(
        width=0.1, rate=1e-4, epochs=10, batch=128, squared_root=False, prior="agreed", dropout=False
    ),
    published=Recipe(width=0.1, rate=1e-4, epochs=10, batch=128, squared_root=False, local="product"),
    metric=_step_error,
    metric_name="mean error of two seconds, m",
    outputs=("displacement east", "displacement north"),
    units=("m", "m"),
    features=CHANNELS,
    data=(
        DataSource(
            name="xyz10_pdr (site1)", licence="MIT", origin="XYZ10, Inc., indoor-location-competition-20"
        ),
    ),
    licence="MIT, as the data",
    credit="Trained by Nonet from random weights; walks by XYZ10, Inc.",
)
