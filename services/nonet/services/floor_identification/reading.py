"""From an uploaded file to scans: CSV with a row for each reading or each scan, Parquet, JSON; also gzipped.

What a file is shows in its first bytes. Memory grows with the readings (12 bytes each on the way), never with
how they were written down. Readings of one scan need not stand together; of several readings of one
transmitter in a scan the strongest is kept.
"""

from __future__ import annotations

import array
import csv
import dataclasses
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import orjson

from nonet.runtime.errors import (
    InvalidArgument,
    NotImplementedHere,
    PayloadTooLarge,
    Unprocessable,
    UnsupportedMediaType,
)
from nonet.runtime.scans import (
    NOT_HEARD,
    SILENT,
    STRONGEST,
    WEAKEST,
    Scans,
    described,
    is_address,
    out_of_range,
    transmitter_key,
)
from nonet.services.floor_identification.table_columns import TableColumns, number

__all__ = ["ReadLimits", "read_file", "read_json_scans"]

_SCAN = ("scan", "scan_id", "obs", "id")
_TRANSMITTER = ("bssid", "ap", "mac", "transmitter")
_RSSI = ("rssi", "dbm", "level")
_NO_COLUMNS = (
    "the CSV needs the columns scan, bssid and rssi, or one for each transmitter, with commas between"
)
_LONGEST_CELL = 1000
_LONGEST_LINE = 4 << 20
_MOST_COLUMNS = 20_000
_LOUDEST_STORED = -1.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds for one upload: scans, readings, and bytes after decompression."""

    scans: int = 200_000
    readings: int = 10_000_000
    decoded_bytes: int = 1 << 30


def read_file(source: BinaryIO, limits: ReadLimits) -> tuple[Scans, dict[str, Any]]:
    """The scans in a file, and the further fields that a JSON object has beside them.

    Raises InvalidArgument for a value or a file that is not as it must be, Unprocessable for JSON of another
    structure, PayloadTooLarge over a limit, UnsupportedMediaType for another kind of file, NotImplementedHere
    for Parquet without pyarrow.
    """
    stream = source
    start = _peek(source, 4)
    if start[:2] == b"\x1f\x8b":
        bounded = _Bounded(gzip.GzipFile(fileobj=source), limits.decoded_bytes)
        start = bounded.peek(4)
        stream = io.BufferedReader(bounded, 1 << 20)
    if start == b"PAR1":
        return _from_parquet(stream, limits), {}
    first = _first_character(start)
    if first in (b"{", b"["):
        return _from_json(_all_of(stream, limits.decoded_bytes), limits)
    if not start:
        raise InvalidArgument("field 'scans' is empty", param="scans")
    if first in (b"<", b"%") or not _is_text(start):
        raise UnsupportedMediaType(
            "field 'scans' must be a file of CSV, Parquet or JSON, also gzipped", param="scans"
        )
    return _from_csv(stream, limits), {}


def read_json_scans(value: Any, limits: ReadLimits) -> Scans:
    """The scans of ``[{"id", "rssi": {transmitter: dBm}}, ...]``; an id may be left out (then the position).

    Raises as :func:`read_file`.
    """
    if not isinstance(value, list):
        raise Unprocessable("field 'scans' must be a list of scans", param="scans")
    if not value:
        raise InvalidArgument("field 'scans' is empty; send at least one scan", param="scans")
    return Scans.build(
        (_json_scan(index, item) for index, item in enumerate(value)),
        most_scans=limits.scans,
        most_readings=limits.readings,
    )


def _json_scan(index: int, item: Any) -> tuple[str, Mapping[str, float]]:
    where = f"scans[{index}]"
    if not isinstance(item, dict) or not item.keys() <= {"id", "rssi"}:
        raise Unprocessable(
            f"field '{where}' must be an object with 'id' and 'rssi' and no more", param="scans"
        )
    name, readings = item.get("id"), item.get("rssi")
    if name is None:
        name = str(index)
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        raise Unprocessable(f"field '{where}.id' must be a text", param="scans")
    if not isinstance(readings, dict):
        raise Unprocessable(f"field '{where}.rssi' must be an object: transmitter to dBm", param="scans")
    for key, power in readings.items():
        if isinstance(power, bool) or not isinstance(power, int | float):
            raise Unprocessable(
                f"field '{where}.rssi' must map transmitters to numbers, got {described(power)} for "
                f"{key[:40]!r}",
                param="scans",
            )
    return name, readings


def _from_json(text: bytes, limits: ReadLimits) -> tuple[Scans, dict[str, Any]]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is not valid JSON: {error.msg}", code="MALFORMED_JSON") from None
    del text
    if isinstance(value, list):
        return read_json_scans(value, limits), {}
    if "scans" not in value:
        raise Unprocessable("field 'scans' is missing", param="scans")
    scans = read_json_scans(value.pop("scans"), limits)
    return scans, value


def _from_csv(stream: BinaryIO, limits: ReadLimits) -> Scans:
    """Either form of CSV; see docs/floors.md."""
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(_lines(io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")))
    try:
        header = next(rows, [])
        names = [name.strip() for name in header]
        if len(names) > _MOST_COLUMNS:
            raise PayloadTooLarge(f"the table has more than {_MOST_COLUMNS} columns", param="scans")
        found = _columns(names)
        gather = _Gather(limits)
        if found is not None:
            _long(rows, found, gather)
        else:
            _wide(rows, names, gather)
        return gather.scans()
    except csv.Error as error:
        raise InvalidArgument(f"line {rows.line_num}: not valid CSV ({error})", param="scans") from None
    except UnicodeDecodeError:
        raise InvalidArgument("the CSV is not UTF-8", param="scans") from None


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a file, none of which can fill the memory. Raises InvalidArgument."""
    number = 0
    while line := text.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise InvalidArgument(f"line {number} has more than {_LONGEST_LINE} characters", param="scans")
        yield line


def _columns(names: list[str]) -> tuple[int, int, int] | None:
    """Columns of scan, transmitter and power if there is a row for each reading. Raises InvalidArgument for
    one that is there twice."""
    lower = [name.lower() for name in names]
    found = [
        next((lower.index(name) for name in among if name in lower), -1)
        for among in (_SCAN, _TRANSMITTER, _RSSI)
    ]
    if min(found) < 0 or sum(map(is_address, names)) > 1:
        return None
    for index in found:
        if lower.count(lower[index]) > 1:
            raise InvalidArgument(f"the column '{lower[index]}' is there twice", param="scans")
    return found[0], found[1], found[2]


def _long(rows: Iterator[list[str]], columns: tuple[int, int, int], gather: _Gather) -> None:
    scan, transmitter, rssi = columns
    needed = max(columns) + 1
    for line, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) < needed:
            raise InvalidArgument(f"line {line}: {needed} columns are needed, got {len(row)}", param="scans")
        gather.add(gather.scan(row[scan].strip()), row[transmitter], _number(row[rssi], line), line)


def _wide(rows: Iterator[list[str]], names: list[str], gather: _Gather) -> None:
    lower = [name.lower() for name in names]
    identity = next((lower.index(name) for name in _SCAN if name in lower), -1)
    columns = TableColumns(names, identity)
    if not columns or len(names) < 2:
        raise InvalidArgument(_NO_COLUMNS, param="scans")
    for line, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(names):
            raise InvalidArgument(
                f"line {line}: {len(names)} columns are needed, got {len(row)}", param="scans"
            )
        name = row[identity].strip() if identity >= 0 else str(line - 2)
        if name in gather.ids:
            raise InvalidArgument(f"line {line}: scan '{name[:40]}' is given twice", param="scans")
        scan = gather.scan(name)
        for transmitter, value in columns.readings(row, line):
            gather.add(scan, transmitter, value, line)
    gather.drop(columns.others())


def _number(text: str, line: int) -> float:
    value = number(text)
    if value is None:
        raise InvalidArgument(f"line {line}: rssi must be a number of dBm, got {text[:40]!r}", param="scans")
    return value


def _from_parquet(stream: BinaryIO, limits: ReadLimits) -> Scans:
    """A table with a row for each reading, read some thousand rows at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NotImplementedHere(
            "Parquet needs pyarrow on the server: pip install pyarrow; CSV and JSON work without",
            param="scans",
            code="EXTRA_MISSING",
        ) from None
    pyarrow.set_cpu_count(1)
    gather = _Gather(limits)
    try:
        table = pyarrow.parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
        found = _columns(list(table.schema_arrow.names))
        if found is None:
            raise InvalidArgument("the table needs the columns scan, bssid and rssi", param="scans")
        if table.metadata.num_rows > limits.readings:
            raise PayloadTooLarge(f"more than {limits.readings} readings", param="scans")
        names = [table.schema_arrow.names[index] for index in found]
        line = 1
        for batch in table.iter_batches(batch_size=16_384, columns=names, use_threads=False):
            scans, transmitters, values = (batch.column(name).to_pylist() for name in names)
            for scan, transmitter, value in zip(scans, transmitters, values, strict=True):
                if None in (scan, transmitter, value) or isinstance(value, str | bytes):
                    raise InvalidArgument(f"row {line}: a value is missing or no number", param="scans")
                gather.add(gather.scan(str(scan)), str(transmitter), float(value), line)
                line += 1
    # ValueError: also ArrowInvalid, names that are not UTF-8, and moments that Python cannot hold.
    except (ValueError, pyarrow.ArrowNotImplementedError, OSError, TypeError, LookupError) as error:
        raise InvalidArgument(
            f"the Parquet file cannot be read: {str(error).partition(chr(10))[0][:120]}", param="scans"
        ) from None
    return gather.scans()


class _Gather:
    """Readings in any order, on their way into compressed rows."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self.ids: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._gone: list[int] = []
        self._scan, self._transmitter, self._rssi = array.array("i"), array.array("i"), array.array("f")

    def scan(self, name: str) -> int:
        """Number of a scan."""
        number = self.ids.setdefault(name, len(self.ids))
        if number >= self._limits.scans:
            raise PayloadTooLarge(f"more than {self._limits.scans} scans", param="scans")
        return number

    def add(self, scan: int, transmitter: str, value: float, line: int) -> None:
        if value in (SILENT, NOT_HEARD):
            return
        if not WEAKEST <= value <= STRONGEST or math.isnan(value):
            raise InvalidArgument(f"line {line}: {out_of_range(value)}", param="scans")
        number = self._written.get(transmitter)
        if number is None:
            key = transmitter_key(transmitter)
            number = self._written[transmitter] = self._keys.setdefault(key, len(self._keys))
        self._scan.append(scan)
        self._transmitter.append(number)
        self._rssi.append(value)
        if len(self._rssi) > self._limits.readings:
            raise PayloadTooLarge(f"more than {self._limits.readings} readings", param="scans")

    def drop(self, written: set[str]) -> None:
        """Forget the readings of what turned out to be no transmitters, named as they were written."""
        self._gone = [self._written[name] for name in written if name in self._written]

    def scans(self) -> Scans:
        """All of it. Raises InvalidArgument without any scan."""
        if not self.ids:
            raise InvalidArgument("field 'scans' has no rows; send at least one scan", param="scans")
        transmitter = np.frombuffer(self._transmitter, np.int32)
        left = np.ones(len(self._keys), np.int32)
        left[self._gone] = 0
        kept = left[transmitter] > 0
        if not kept.any():
            raise InvalidArgument("field 'scans' has no readings", param="scans")
        transmitter = (np.cumsum(left, dtype=np.int32) - 1)[transmitter[kept]]
        scan = np.frombuffer(self._scan, np.int32)[kept]
        rssi = np.frombuffer(self._rssi, np.float32)[kept]
        order = np.lexsort((-rssi, transmitter, scan))
        scan, transmitter, rssi = scan[order], transmitter[order], rssi[order]
        first = np.ones(len(scan), bool)
        first[1:] = (np.diff(scan) != 0) | (np.diff(transmitter) != 0)
        scan, transmitter, rssi = scan[first], transmitter[first], rssi[first]
        counts = np.bincount(scan, minlength=len(self.ids))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Scans(
            tuple(self.ids),
            tuple(key for key, index in self._keys.items() if left[index]),
            offsets,
            transmitter,
            np.minimum(rssi, np.float32(_LOUDEST_STORED)),
        )


class _Bounded(io.RawIOBase):
    """What a decompressor gives, up to a limit."""

    def __init__(self, source: gzip.GzipFile, limit: int) -> None:
        self._source = source
        self._left = limit

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        try:
            return self._source.peek(size)[:size]
        except (OSError, EOFError, zlib.error):
            raise InvalidArgument("the gzip stream is damaged", param="scans") from None

    def readinto(self, target: Any) -> int:
        try:
            data = self._source.read(len(target))
        except (OSError, EOFError, zlib.error):
            raise InvalidArgument("the gzip stream is damaged", param="scans") from None
        self._left -= len(data)
        if self._left < 0:
            raise PayloadTooLarge("the upload is too large when decompressed", code="DECODED_BODY_TOO_LARGE")
        target[: len(data)] = data
        return len(data)


def _peek(stream: BinaryIO, size: int) -> bytes:
    start = stream.read(size)
    stream.seek(0)
    return start


def _first_character(start: bytes) -> bytes:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _is_text(start: bytes) -> bool:
    """Whether a file may be text by its first bytes, which may end within a character."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        text = start[: error.start].decode("utf-8")
    return bool(text) and all(letter.isprintable() or letter in "\r\n\t\ufeff" for letter in text)


def _all_of(stream: BinaryIO, limit: int) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while piece := stream.read(1 << 20):
        total += len(piece)
        if total > limit:
            raise PayloadTooLarge("the upload is too large", param="scans")
        pieces.append(piece)
    return b"".join(pieces)
