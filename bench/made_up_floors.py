"""Buildings that nobody has built, noisy and uneven, for estimating the number of floors: size, slabs, noise,
path loss, missing readings, phones, walks, cached scans and the share of each floor are drawn by the seed."""

from __future__ import annotations

import numpy as np

from nonet.research.fis_one.data import SurveyedBuilding
from nonet.runtime.scans import Scans


def made_up_building(floors: int, seed: int) -> SurveyedBuilding:
    """60 to 200 scans a floor on average, at least a quarter of that on each."""
    draw = np.random.default_rng([seed, floors, 99])
    slab, noise, phone, missing = draw.uniform((10, 2, 0, 0), (18, 6, 4, 0.3))
    size = draw.uniform((25, 12), (80, 40))
    aps, exponent = int(draw.integers(5, 20)), draw.uniform(2.2, 3.2)
    share = np.maximum(draw.dirichlet(np.full(floors, draw.uniform(2, 20))), 0.25 / floors)
    scans = floors * int(draw.integers(60, 200))
    counts = np.maximum((share / share.sum() * scans).astype(int), 15)
    floor = np.repeat(np.arange(floors), counts)
    place = np.concatenate([_walk(count, size, draw) for count in counts])
    stairs = np.linalg.norm(place - draw.random(2) * size, axis=1) < 3
    home = np.repeat(np.arange(floors), aps)
    source = draw.random((len(home), 2)) * size
    away = np.linalg.norm(place[:, None] - source[None], axis=2)
    slabs = np.abs(floor[:, None] - home[None])
    distance = np.maximum(np.hypot(away, 4.0 * slabs + 2), 1)
    rssi = -38 - 10 * exponent * np.log10(distance) - slab * slabs * np.where(stairs, 0.5, 1)[:, None]
    rssi = rssi + draw.normal(0, 3, len(home)) + draw.normal(0, noise, rssi.shape)
    rssi = np.round(np.minimum(rssi + draw.normal(0, phone, (len(floor), 1)), -20))
    heard = (rssi > -90) & (draw.random(rssi.shape) > missing)
    heard[np.arange(len(floor)), rssi.argmax(1)] = True
    source_of = _cached(floor, draw.uniform(0, 0.5), draw)
    scan, ap = np.nonzero(heard[source_of])
    readings = np.maximum(rssi, -89)[source_of][scan, ap]
    names = (
        tuple(f"s{index}" for index in range(len(floor))),
        tuple(f"a{index}" for index in range(len(home))),
    )
    return SurveyedBuilding(
        f"made up, {floors} floors, seed {seed}",
        Scans.from_readings(*names, scan, ap, readings),
        floor.astype(np.int32),
        tuple(f"F{index + 1}" for index in range(floors)),
    )


def _walk(count: int, size: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Places along straight lines between points, about 25 scans to a line."""
    points = draw.random((max(count // 25, 1) + 2, 2)) * size
    along = np.sort(draw.random(count)) * (len(points) - 1)
    start = np.minimum(along.astype(int), len(points) - 2)
    return points[start] + (points[start + 1] - points[start]) * (along - start)[:, None]


def _cached(floor: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
    """Whose readings each scan has: a share of the scans repeats the one before on its floor."""
    source = np.arange(len(floor))
    repeated = draw.random(len(floor)) < share
    for index in np.flatnonzero(repeated[1:] & (floor[1:] == floor[:-1])) + 1:
        source[index] = source[index - 1]
    return source
