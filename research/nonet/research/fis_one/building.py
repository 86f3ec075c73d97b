"""What a fit is given and what it gives back. No torch here: a fitted building is arrays and facts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonet.research.fis_one.floor_names import name_floors
from nonet.runtime.errors import InvalidArgument

FORMAT = 1
"""Version of the format of ``building.json``."""

PRESETS = ("default", "paper")
MOST_FLOORS = 16
FEWEST_FLOORS = 2


@dataclasses.dataclass(frozen=True, slots=True)
class FloorLabel:
    """The one label: scan ``scan`` was taken on floor ``floor``.

    Args:
        scan: id of a scan of the building.
        floor: the floor's name ("B1", "3F", "Lobby") or number.
        position: which floor that is, counted from the bottom (1) or from the top (-1). None: its place in
            ``FitOptions.names`` if there are any, else the bottom floor, as in the paper.

    Raises InvalidArgument for position 0 or an empty name.
    """

    scan: str
    floor: str | int
    position: int | None = None

    def __post_init__(self) -> None:
        if self.position == 0:
            raise InvalidArgument("position counts from 1 (bottom) or from -1 (top)", param="labelled")
        if not str(self.floor).strip():
            raise InvalidArgument("the labelled scan needs the name or number of its floor", param="labelled")


@dataclasses.dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit.

    Args:
        preset: "default" (the best recipe found that needs no further label) or "paper" (one network, Ward).
        floors: number of floors, 2 to 16; None takes it from ``names``, or estimates it.
        names: names of all floors from the bottom up; None makes them up from the label's.
        seed: of every random choice.
        threads: CPU threads of the fit.

    Raises InvalidArgument for values outside these.
    """

    preset: str = "default"
    floors: int | None = None
    names: tuple[str, ...] | None = None
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InvalidArgument(f"preset must be one of {', '.join(PRESETS)}, got '{self.preset}'")
        if self.names is not None:
            if len(set(self.names)) != len(self.names) or not all(name.strip() for name in self.names):
                raise InvalidArgument("the floors' names must be different and not empty", param="floors")
            if self.floors not in (None, len(self.names)):
                raise InvalidArgument(
                    f"floors is {self.floors}, but {len(self.names)} names are given", param="floors"
                )
        count = self.count
        if count is not None and not FEWEST_FLOORS <= count <= MOST_FLOORS:
            raise InvalidArgument(
                f"floors must be {FEWEST_FLOORS} to {MOST_FLOORS}, got {count}", param="floors"
            )
        if self.seed < 0 or self.threads < 1:
            raise InvalidArgument("seed must not be negative, and threads at least 1")

    @property
    def count(self) -> int | None:
        """The number of floors, or None if it is to be estimated."""
        return len(self.names) if self.names is not None else self.floors

    def position_of(self, label: FloorLabel, floors: int) -> int:
        """Which of ``floors`` floors the label means, 1 = bottom. Raises InvalidArgument if none."""
        position = label.position
        if position is None:
            if self.names is None:
                return 1
            if str(label.floor) not in self.names:
                raise InvalidArgument(
                    f"floor '{label.floor}' of the labelled scan is not among the floors "
                    f"{', '.join(self.names)}",
                    param="labelled",
                )
            return self.names.index(str(label.floor)) + 1
        if not 1 <= abs(position) <= floors:
            raise InvalidArgument(
                f"the labelled scan is on floor {position} of {floors}: there is no such floor",
                param="labelled",
            )
        return position if position > 0 else floors + 1 + position

    def floor_names(self, label: FloorLabel, floors: int) -> tuple[str, ...]:
        """Names of all ``floors`` floors, bottom first. Raises InvalidArgument if none can be made up."""
        if self.names is not None:
            return self.names
        return name_floors(str(label.floor), self.position_of(label, floors), floors)


@dataclasses.dataclass(frozen=True, slots=True)
class FitProgress:
    """How far a fit is: ``fraction`` 0 to 1, never falling, and what is being done, in plain words."""

    fraction: float
    phase: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FittedBuilding:
    """A building's floors, found from its scans.

    Attributes:
        scans: ids of the scans it was fitted on (N).
        transmitters: the columns of ``rssi`` when a new scan is identified (M).
        floors: names of the floors, bottom first (K).
        floor_of_scan: int32 (N), index into ``floors``; -1 for a scan without a usable reading.
        network: the arrays that identify a new scan (see ``identifier``), float32, by name.
        picture: float32 (N, 2), the scans in the plane, for drawing.
        facts: everything ``building.json`` says: JSON-able, documented in docs/floors.md.
        label, options: what the fit was given.
    """

    scans: tuple[str, ...]
    transmitters: tuple[str, ...]
    floors: tuple[str, ...]
    floor_of_scan: NDArray[np.int32]
    network: dict[str, NDArray[np.float32]]
    picture: NDArray[np.float32]
    facts: dict[str, Any]
    label: FloorLabel
    options: FitOptions
