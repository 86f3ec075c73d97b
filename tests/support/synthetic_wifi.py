"""A made-up building with slabs between its floors, and small recipes."""

from __future__ import annotations

import dataclasses

import numpy as np

from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.recipes import DEFAULT, PAPER, Recipe
from nonet.runtime.scans import Scans

QUICK: Recipe = dataclasses.replace(DEFAULT, steps=60, batch=400)
QUICK_PAPER: Recipe = dataclasses.replace(PAPER, steps=1200, batch=1000)


def made_up(
    floors: int = 4, per_floor: int | tuple[int, ...] = 60, seed: int = 0, aps: int = 12
) -> SurveyedBuilding:
    """Halls of 50 x 20 m, 4 m high, ``aps`` transmitters each; 14 dB a slab, 3 dB of noise."""
    generator = np.random.default_rng(seed)
    counts = per_floor if isinstance(per_floor, tuple) else (per_floor,) * floors
    floor = np.repeat(np.arange(floors), counts)
    size = np.array([50.0, 20.0])
    place = np.column_stack([generator.random((len(floor), 2)) * size, 4.0 * floor])
    home = np.repeat(np.arange(floors), aps)
    source = np.column_stack([generator.random((len(home), 2)) * size, 4.0 * home + 2])
    distance = np.linalg.norm(place[:, None] - source[None], axis=2)
    slabs = np.abs(floor[:, None] - home[None])
    rssi = -38 - 25 * np.log10(np.maximum(distance, 1)) - 14 * slabs
    rssi = np.minimum(rssi + generator.normal(0, 3, rssi.shape), -1)
    scan, ap = np.nonzero(rssi > -89)
    scans = Scans.from_readings(
        tuple(f"s{index}" for index in range(len(floor))),
        tuple(f"ap{index}" for index in range(len(home))),
        scan,
        ap,
        rssi[scan, ap],
    )
    names = tuple(f"F{index + 1}" for index in range(floors))
    return SurveyedBuilding("made up", scans, floor.astype(np.int32), names)
