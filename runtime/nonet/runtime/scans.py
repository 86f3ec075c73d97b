"""WiFi scans of one building in compressed rows: what an upload becomes, and what a building is fitted on.

A scan is a set of (transmitter, received power) pairs of any length. All scans together are four arrays, so a
million readings take 8 MB, whatever the number of scans.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge

WEAKEST, STRONGEST = -150.0, 0.0
"""Range of a reading in dBm, ends included."""

SILENT = 0.0
"""What phones and drivers give where they heard nothing: no receiver reads 0 dBm. Never a reading."""

NOT_HEARD = 100.0
"""What public data sets write for a transmitter that was not heard; a mark of tables only."""

MOST_SCANS = 2_000_000
MOST_TRANSMITTERS = 1_000_000
MOST_READINGS = 100_000_000
LONGEST_NAME = 256
"""Characters of a scan's or a transmitter's name."""

_FORMAT = "nonet-scans-1"
_LARGEST_FILE = 2 << 30
_LOUDEST_STORED = -1.0
_HEX = "[0-9A-Fa-f]"
_ADDRESS = re.compile(
    rf"(?:0[xX])?{_HEX}{{12}}"
    rf"|{_HEX}{{2}}([._ ])(?:{_HEX}{{2}}\1){{4}}{_HEX}{{2}}"
    rf"|{_HEX}{{1,2}}([:\-])(?:{_HEX}{{1,2}}\2){{4}}{_HEX}{{1,2}}"  # some systems leave out leading zeros
    rf"|{_HEX}{{4}}([.:\-])(?:{_HEX}{{4}}\3){_HEX}{{4}}"
    rf"|{_HEX}{{6}}[.:\-]{_HEX}{{6}}"
)
_AROUND = " \t[](){}<>\"'`"

Readings = Mapping[str, float] | Iterable[tuple[str, float]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scans:
    """N scans of M transmitters with E readings.

    Attributes:
        ids: names of the scans (N), unique.
        transmitters: names of the transmitters (M), unique.
        offsets: int64 (N + 1); the readings of scan i are those from ``offsets[i]`` to ``offsets[i + 1]``.
        transmitter: int32 (E), index into ``transmitters``, rising within a scan.
        rssi: float32 (E), received power in dBm, -150 to -1. A stronger reading is stored as -1; 0 means
            "not heard".

    Raises InvalidArgument if the arrays do not fit together.
    """

    ids: tuple[str, ...]
    transmitters: tuple[str, ...]
    offsets: NDArray[np.int64]
    transmitter: NDArray[np.int32]
    rssi: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_names(self.ids, "scan", MOST_SCANS)
        _check_names(self.transmitters, "transmitter", MOST_TRANSMITTERS)
        kinds = ((self.offsets, np.int64), (self.transmitter, np.int32), (self.rssi, np.float32))
        if any(values.dtype != kind or values.ndim != 1 for values, kind in kinds):
            raise InvalidArgument("scans: offsets must be int64, transmitter int32 and rssi float32 vectors")
        count, readings = len(self.ids), len(self.rssi)
        if len(self.offsets) != count + 1 or self.offsets[0] != 0 or self.offsets[-1] != readings:
            raise InvalidArgument(f"scans: offsets must be {count + 1} numbers from 0 to {readings}")
        if (np.diff(self.offsets) < 0).any() or len(self.transmitter) != readings:
            raise InvalidArgument("scans: offsets must not fall, and each reading needs its transmitter")
        if readings == 0:
            return
        if self.transmitter.min() < 0 or self.transmitter.max() >= len(self.transmitters):
            raise InvalidArgument(f"scans: transmitters are numbered from 0 to {len(self.transmitters) - 1}")
        rising = np.diff(self.transmitter) > 0
        starts = self.offsets[1:-1]
        rising[starts[(starts > 0) & (starts < readings)] - 1] = True
        if not rising.all():
            raise InvalidArgument("scans: a scan's transmitters must rise, each given once")
        if not (self.rssi.min() >= WEAKEST and self.rssi.max() <= _LOUDEST_STORED):
            raise InvalidArgument(f"scans: rssi must be {WEAKEST:.0f} to {_LOUDEST_STORED:.0f} dBm")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(
        cls,
        scans: Iterable[tuple[str, Readings]],
        *,
        most_scans: int = MOST_SCANS,
        most_readings: int = MOST_READINGS,
    ) -> Scans:
        """Gather scans one by one; memory grows with the readings, not with how they were written down.

        Args:
            scans: (id, readings) pairs; readings map a transmitter to dBm, -150 to 0, or are such pairs. 0 is
                x (see ``transmitter_key``). Transmitters are numbered in the order they are met.
            most_scans, most_readings: above these, PayloadTooLarge is raised.

        Raises InvalidArgument for a repeated id, a name that is empty or too long, a value out of range.
        """
        ids: dict[str, None] = {}
        known: dict[str, int] = {}
        offsets, columns, values = array.array("q", [0]), array.array("i"), array.array("f")
        for name, readings in scans:
            if name in ids:
                raise InvalidArgument(f"scan '{_short(name)}' is given twice", param="scans")
            if len(ids) >= most_scans:
                raise PayloadTooLarge(f"more than {most_scans} scans", param="scans")
            ids[name] = None
            strongest = _strongest(name, readings, known)
            for column in sorted(strongest):
                columns.append(column)
                values.append(min(strongest[column], _LOUDEST_STORED))
            if len(values) > most_readings:
                raise PayloadTooLarge(f"more than {most_readings} readings", param="scans")
            offsets.append(len(values))
        return cls(
            tuple(ids),
            tuple(known),
            np.frombuffer(offsets, dtype=np.int64),
            np.frombuffer(columns, dtype=np.int32) if columns else np.empty(0, np.int32),
            np.frombuffer(values, dtype=np.float32) if values else np.empty(0, np.float32),
        )

    @classmethod
    def from_readings(
        cls,
        ids: tuple[str, ...],
        transmitters: tuple[str, ...],
        scan: NDArray[np.integer],
        transmitter: NDArray[np.integer],
        rssi: NDArray[np.number],
    ) -> Scans:
        """Gather a long table: reading e is of scan ``ids[scan[e]]`` and ``transmitters[transmitter[e]]``.

        The order of the table does not matter; of several readings of a pair the strongest is kept, and 0 is
        none. Names are taken as they are. Raises InvalidArgument for numbers without a name and values out of
        range.
        """
        if len(scan) and not (scan.min() >= 0 and scan.max() < len(ids)):
            raise InvalidArgument(f"scans: scans are numbered from 0 to {len(ids) - 1}", param="scans")
        values = rssi.astype(np.float32)
        if not ((values >= WEAKEST) & (values <= STRONGEST)).all():
            raise InvalidArgument(f"scans: rssi must be {WEAKEST:.0f} to {STRONGEST:.0f} dBm", param="scans")
        there = np.flatnonzero(values != SILENT)
        order = there[np.lexsort((-values[there], transmitter[there], scan[there]))]
        rows, columns = scan[order].astype(np.int64), transmitter[order].astype(np.int32)
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(rows) != 0) | (np.diff(columns) != 0)
        offsets = np.searchsorted(rows[first], np.arange(len(ids) + 1)).astype(np.int64)
        return cls(
            ids, transmitters, offsets, columns[first], np.minimum(values[order][first], _LOUDEST_STORED)
        )

    def take(self, rows: NDArray[np.integer]) -> Scans:
        """The scans at ``rows`` (indices), in that order; all transmitters stay."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Scans(
            tuple(self.ids[row] for row in rows),
            self.transmitters,
            offsets,
            self.transmitter[index],
            self.rssi[index],
        )

    def dense(self, transmitters: tuple[str, ...] | None = None) -> NDArray[np.float32]:
        """Rows (N, M) in dBm with 0 for "not heard", for the columns ``transmitters`` (default: its own)."""
        wanted = self.transmitters if transmitters is None else transmitters
        column = {name: index for index, name in enumerate(wanted)}
        place = np.array([column.get(name, -1) for name in self.transmitters], np.int64).reshape(-1)
        rows = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        columns = place[self.transmitter]
        known = columns >= 0
        filled = np.zeros((len(self), len(wanted)), np.float32)
        filled[rows[known], columns[known]] = self.rssi[known]
        return filled

    def save(self, path: Path) -> None:
        """Write to one safetensors file, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        tensors = {
            **_pack("ids", self.ids),
            **_pack("transmitters", self.transmitters),
            "offsets": self.offsets,
            "transmitter": self.transmitter,
            "rssi": self.rssi,
        }
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        save_file(contiguous, partial, {"format": _FORMAT})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, *, most_readings: int = MOST_READINGS) -> Scans:
        """Read what ``save`` wrote. Raises InvalidArgument for another or a damaged file, PayloadTooLarge
        for one with too many readings, FileNotFoundError if there is none."""
        if path.stat().st_size > _LARGEST_FILE:
            raise PayloadTooLarge("the file of scans is larger than 2 GiB")
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise InvalidArgument("not a file of scans")
                if file.get_slice("rssi").get_shape()[0] > most_readings:
                    raise PayloadTooLarge(f"more than {most_readings} readings", param="scans")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(
                _unpack("ids", tensors),
                _unpack("transmitters", tensors),
                tensors["offsets"],
                tensors["transmitter"],
                tensors["rssi"],
            )
        except (SafetensorError, KeyError, IndexError, ValueError):
            raise InvalidArgument("the file of scans is damaged") from None


@functools.lru_cache(maxsize=65_536)
def transmitter_key(name: str) -> str:
    """The form in which a transmitter's name is compared.

    A 48-bit address, however it is spelled (``AA-BB-..``, ``aabb.ccdd.eeff``, ``aabbcc-ddeeff``, ``0:1b:..``,
    in brackets or quotes), is in lower case with colons; anything else (a network name, a hash) is as it is,
    without surrounding blanks.
    """
    text = name.strip()
    bare = text.strip(_AROUND)
    if _ADDRESS.fullmatch(bare):
        groups = re.split(r"[:\-._ ]", bare.lower().removeprefix("0x"))
        digits = "".join(group.zfill(2) for group in groups)
        return ":".join(digits[index : index + 2] for index in range(0, 12, 2))
    return text


def is_address(name: str) -> bool:
    """Whether a name is a 48-bit address in one of the spellings that ``transmitter_key`` knows."""
    return _ADDRESS.fullmatch(name.strip(_AROUND)) is not None


def out_of_range(power: float) -> str:
    """Why ``power`` is no reading, in words."""
    hint = "; leave out what was not heard" if power == NOT_HEARD else ""
    return f"rssi must be {WEAKEST:.0f} to {STRONGEST:.0f} dBm, got {power:g}{hint}"


def described(value: object) -> str:
    """A JSON value that is no reading, in the words of JSON."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value, ensure_ascii=False)[:40]


def _strongest(scan: str, readings: Readings, known: dict[str, int]) -> dict[int, float]:
    """The strongest reading by transmitter number; new transmitters are added to ``known``."""
    found: dict[int, float] = {}
    for name, value in _pairs(readings):
        key = transmitter_key(name)
        if not WEAKEST <= value <= STRONGEST:
            raise InvalidArgument(
                f"scan '{_short(scan)}': {out_of_range(value)}",
                param="scans",
            )
        if value == SILENT:
            continue
        column = known.setdefault(key, len(known))
        if column not in found or value > found[column]:
            found[column] = value
    return found


def _pairs(readings: Readings) -> Iterator[tuple[str, float]]:
    yield from readings.items() if isinstance(readings, Mapping) else readings


def _check_names(names: tuple[str, ...], what: str, most: int) -> None:
    if len(names) > most:
        raise PayloadTooLarge(f"more than {most} {what}s", param="scans")
    if len(set(names)) != len(names):
        raise InvalidArgument(f"scans: two {what}s have the same name", param="scans")
    for name in names:
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise InvalidArgument(
                f"scans: a {what}'s name must be 1 to {LONGEST_NAME} printable characters, "
                f"got '{_short(name)}'",
                param="scans",
            )


def _short(name: str) -> str:
    text = name if name.isprintable() else repr(name)[1:-1]
    return text if len(text) <= 40 else text[:37] + "..."


def _pack(name: str, texts: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return {f"{name}.text": np.frombuffer(b"".join(encoded), np.uint8), f"{name}.ends": ends}


def _unpack(name: str, tensors: Mapping[str, NDArray[np.generic]]) -> tuple[str, ...]:
    text, ends = tensors[f"{name}.text"].tobytes(), tensors[f"{name}.ends"].tolist()
    return tuple(text[start:end].decode() for start, end in itertools.pairwise(ends))
