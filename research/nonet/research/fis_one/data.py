"""The real buildings: scans with the floor each was taken on, and the walk where it is known.

Floors are used for measuring and for drawing the one label, never by a fit.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv, parquet

from nonet.research.fis_one.building import FloorLabel
from nonet.research.fis_one.floor_names import order_floors
from nonet.runtime.scans import Scans

NOT_HEARD = 100
"""How the fingerprint tables write a transmitter that was not heard."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SurveyedBuilding:
    """Scans of a building with the truth beside them.

    Attributes:
        name: of the building.
        scans: N scans.
        floor: int32 (N), index into ``floors``.
        floors: names, bottom first.
        walk: int32 (N), number of the walk a scan belongs to, or None where walks are not known.
    """

    name: str
    scans: Scans
    floor: NDArray[np.int32]
    floors: tuple[str, ...]
    walk: NDArray[np.int32] | None = None

    def take(self, rows: NDArray[np.integer]) -> SurveyedBuilding:
        """The scans at ``rows``."""
        walk = None if self.walk is None else self.walk[rows]
        return dataclasses.replace(self, scans=self.scans.take(rows), floor=self.floor[rows], walk=walk)

    def balanced(self, per_floor: int, seed: int) -> SurveyedBuilding:
        """``per_floor`` scans of each floor (needs the floors: for evaluation only)."""
        generator = np.random.default_rng(seed)
        rows = [
            generator.choice(np.flatnonzero(self.floor == floor), per_floor, replace=False)
            for floor in range(len(self.floors))
        ]
        return self.take(np.sort(np.concatenate(rows)))

    def label(self, seed: int, floor: int = 0) -> FloorLabel:
        """A label on ``floor`` (an index; the bottom by default), drawn by the seed."""
        row = np.random.default_rng(seed).choice(np.flatnonzero(self.floor == floor))
        return FloorLabel(self.scans.ids[row], self.floors[floor], position=floor + 1)


def data_folder(root: Path | None = None) -> Path:
    """The folder of data sets: ``root``, else NONET_DATA, else ../shared/data beside the checkout.

    Raises FileNotFoundError if there is no such folder.
    """
    named = root or os.environ.get("NONET_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[5] / "shared" / "data"
    if not folder.is_dir():
        raise FileNotFoundError("data sets not found: set NONET_DATA to the folder that holds them")
    return folder


def load_building(name: str, root: Path | None = None) -> SurveyedBuilding:
    """One of BUILDINGS. Raises FileNotFoundError if its data set is absent, KeyError for another name."""
    reader, *arguments = _READERS[name]
    return reader(name, data_folder(root), *arguments)


def _table(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of a CSV (plain or gzip) by name."""
    read = csv.read_csv(path, read_options=csv.ReadOptions(use_threads=False))
    return {name: read.column(name).to_numpy() for name in read.column_names}


def _numbered(names: NDArray[Any]) -> tuple[NDArray[np.int32], list[str]]:
    """Numbers 0.. for names, and the names in the order of the numbers."""
    known, index = np.unique(names.astype(str), return_inverse=True)
    return index.astype(np.int32), known.tolist()


def _floors(names: NDArray[Any]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    floors = order_floors(sorted({str(name) for name in names}))
    rank = {name: index for index, name in enumerate(floors)}
    return np.array([rank[name] for name in names.astype(str)], np.int32), tuple(floors)


def _microsoft(name: str, root: Path, folder: str, scans_file: str, scan: str) -> SurveyedBuilding:
    """A building of the Microsoft data: one row a reading."""
    place = root / folder
    scans, readings, aps = (_table(place / file) for file in (scans_file, "rssi.csv.gz", "aps.csv.gz"))
    hashed = "bssid_sha1" if "bssid_sha1" in aps else "ssid_sha1"
    floor, floors = _floors(scans["floor"])
    return SurveyedBuilding(
        name,
        Scans.from_readings(
            tuple(f"{number}" for number in scans[scan]),
            tuple(aps[hashed].astype(str)),
            readings[scan],
            readings["ap"],
            readings["rssi"],
        ),
        floor,
        floors,
        _numbered(scans["path"])[0] if "path" in scans else None,
    )


def _mall(name: str, root: Path, site: str) -> SurveyedBuilding:
    """One site of xyz10_wifi; a transmitter is a BSSID."""
    place = root / "xyz10_wifi"
    scans, aps = _table(place / "scans.csv.gz"), _table(place / "aps.csv.gz")
    here = np.flatnonzero(scans["site"] == site)
    ours = np.flatnonzero(aps["site"] == site)
    readings = parquet.read_table(place / "rssi.parquet", columns=["scan", "ap", "rssi"], use_threads=False)
    scan, ap, rssi = (readings.column(column).to_numpy() for column in ("scan", "ap", "rssi"))
    row_of = np.full(len(scans["scan"]), -1, np.int64)
    row_of[scans["scan"][here]] = np.arange(len(here))
    column_of = np.full(int(aps["ap"].max()) + 1, -1, np.int64)
    column_of[aps["ap"][ours]] = np.arange(len(ours))
    kept = row_of[scan] >= 0
    floor, floors = _floors(scans["floor"][here])
    return SurveyedBuilding(
        name,
        Scans.from_readings(
            tuple(f"{number}" for number in scans["scan"][here]),
            tuple(aps["bssid"][ours].astype(str)),
            row_of[scan[kept]],
            column_of[ap[kept]],
            rssi[kept],
        ),
        floor,
        floors,
        _numbered(scans["path"][here])[0],
    )


def _fingerprints(name: str, root: Path, files: tuple[str, ...], prefix: str, floor: str) -> SurveyedBuilding:
    """Tables with a column per transmitter."""
    tables = [_table(root / file) for file in files]
    columns = [column for column in tables[0] if column.removeprefix(prefix).isdigit()]
    dense = np.concatenate([np.stack([table[column] for column in columns], 1) for table in tables])
    levels = np.concatenate([table[floor] for table in tables])
    scan, ap = np.nonzero(dense != NOT_HEARD)
    index, floors = _floors(levels)
    return SurveyedBuilding(
        name,
        Scans.from_readings(
            tuple(f"{number}" for number in range(len(dense))),
            tuple(columns),
            scan,
            ap,
            dense[scan, ap],
        ),
        index,
        floors,
    )


def _uji(name: str, root: Path, file: str) -> SurveyedBuilding:
    return _fingerprints(name, root, (f"ujiindoorloc/{file}",), "WAP", "FLOOR")


_CETC = tuple(f"sodindoorloc_cetc331/{part}_CETC331.csv.gz" for part in ("Training", "Testing"))

_READERS: dict[str, tuple[Any, ...]] = {
    "5cd56bb5": (_microsoft, "ms_building_5cd56bb5", "observations.csv.gz", "obs"),
    "5cd969be": (_microsoft, "ms_building_5cd969be", "scans.csv.gz", "scan"),
    "site1": (_mall, "site1"),
    "site2": (_mall, "site2"),
    "cetc331": (_fingerprints, _CETC, "MAC", "FloorID"),
    "uji0": (_uji, "trainingData_building0.csv.gz"),
    "uji1": (_uji, "trainingData_building1.csv.gz"),
}

BUILDINGS = tuple(_READERS)
