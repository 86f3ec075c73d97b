"""A file of rows -> FP32 numbers on the disk: CSV, JSON, JSON lines, NumPy's npy and npz without pickle.

What a file is shows in its first bytes. Memory holds some thousand rows at a time, but for a JSON document
and a member of an npz, whose sizes are bounded.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import itertools
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, UnsupportedMediaType
from nonet.runtime.tensors import Array
from nonet.services.adaptation.columns import Columns

__all__ = ["ReadRows", "RowLimits", "read_csv", "read_rows"]

_CHUNK: Final = 4096
_LONGEST_LINE: Final = 8 << 20
_LONGEST_CELL: Final = 4096
_START: Final = 64
_FIELD: Final = "inputs"


@dataclasses.dataclass(frozen=True, slots=True)
class RowLimits:
    """Bounds for one file: rows, numbers in all of them, bytes of a JSON document."""

    rows: int = 500_000
    values: int = 64 << 20
    document_bytes: int = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class ReadRows:
    """What a file held.

    Args:
        rows: how many.
        digest: sha256 (hex) of the numbers.
        kind: of the file, e.g. ``CSV``.
        ignored: columns of a table with a header that the model does not have.
        fields: what a JSON object had beside ``inputs``.
    """

    rows: int
    digest: str
    kind: str
    ignored: tuple[str, ...] = ()
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


class _Writer:
    """Rows on their way to the disk, counted against the limits."""

    def __init__(self, target: BinaryIO, columns: Columns, limits: RowLimits) -> None:
        self._target = target
        self._columns = columns
        self._most = min(limits.rows, limits.values // columns.size)
        self._digest = hashlib.sha256()
        self.rows = 0

    def array(self, rows: Array) -> None:
        """FP32 [N, ...]. Raises PayloadTooLarge over the limits, InvalidArgument for NaN and infinities."""
        if self.rows + len(rows) > self._most:
            raise PayloadTooLarge(
                f"the file has more than {self._most} rows; send a sample of the site's", param=_FIELD
            )
        self._columns.check_array(rows, self.rows)
        data = rows.astype("<f4", copy=False).tobytes()
        self._target.write(data)
        self._digest.update(data)
        self.rows += len(rows)

    def done(self, kind: str, ignored: Sequence[str] = (), fields: dict[str, Any] | None = None) -> ReadRows:
        if not self.rows:
            raise InvalidArgument(f"the file has no rows (read as {kind})", param=_FIELD)
        return ReadRows(self.rows, self._digest.hexdigest(), kind, tuple(ignored), fields or {})


def read_rows(source: Path, output: Path, columns: Columns, limits: RowLimits) -> ReadRows:
    """Read the file ``source`` and write its numbers to the new file ``output``.

    Raises InvalidArgument for a value that is not as it must be (row and column named), PayloadTooLarge over
    a limit, UnsupportedMediaType for another kind of file.
    """
    with source.open("rb") as stream, output.open("xb") as target:
        writer = _Writer(target, columns, limits)
        start = stream.read(_START)
        stream.seek(0)
        if start.startswith(b"\x93NUMPY"):
            return _from_npy(source, columns, writer)
        if start.startswith(b"PK\x03\x04"):
            return _from_npz(source, columns, writer, limits)
        if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            return _from_json(stream, columns, writer, limits)
        if not start or any(byte < 9 or 13 < byte < 32 for byte in start) or start[:1] in (b"<", b"%"):
            raise UnsupportedMediaType(
                "send the rows as CSV, JSON, JSON lines, npy or npz; the file is none of them", param=_FIELD
            )
        return _from_csv(stream, columns, writer)


# -- tables ------------------------------------------------------------------------------------


def read_csv(text: bytes, most: int) -> list[Any]:
    """The rows of a small table, each as a list of numbers, or as an object where the table has a header.

    Cells that are no numbers stay texts, empty ones become null. Raises InvalidArgument for more than
    ``most`` rows or none, and for text that is not UTF-8.
    """
    lines = _lines(io.BytesIO(text))
    header, table = _begin(lines)
    found: list[Any] = []
    for row, cells in enumerate(table):
        if row >= most:
            raise InvalidArgument(f"the table has more than {most} rows; send them in parts", param=_FIELD)
        values = [_cell(cell) for cell in cells]
        if header is None:
            found.append(values)
        elif len(values) == len(header):
            found.append(dict(zip(header, values, strict=True)))
        else:
            raise InvalidArgument(
                f"row {row} has {len(values)} cells, the header {len(header)}", param=_FIELD
            )
    if not found:
        raise InvalidArgument("the table has no rows", param=_FIELD)
    return found


def _cell(text: str) -> Any:
    """What JSON says of it: NaN and infinities, which JSON does not have, stay texts."""
    try:
        number = float(text)
    except ValueError:
        return text.strip() or None
    return number if math.isfinite(number) else text


def _from_csv(stream: BinaryIO, columns: Columns, writer: _Writer) -> ReadRows:
    header, table = _begin(_lines(stream))
    places = list(range(columns.size)) if header is None else columns.places(header)
    width = len(places) if header is None else len(header)
    ignored = [] if header is None else [name for name in header if name not in columns.features]
    for chunk in _chunks(table):
        rows = np.empty((len(chunk), columns.size), np.float32)
        for index, cells in enumerate(chunk):
            if len(cells) != width:
                raise columns.wrong_count(writer.rows + index, len(cells), width)
            try:
                rows[index] = [float(cells[place]) for place in places]
            except ValueError:
                for column, place in enumerate(places):
                    columns.number(cells[place], writer.rows + index, column)
        writer.array(rows.reshape(len(chunk), *columns.shape))
    return writer.done("CSV", ignored)


def _chunks(values: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(values, _CHUNK)):
        yield chunk


def _begin(lines: Iterator[str]) -> tuple[list[str] | None, Iterator[list[str]]]:
    """The header, None where the first line is a row already, and the rows; empty lines are left out."""
    csv.field_size_limit(_LONGEST_CELL)
    first = next((line for line in lines if line.strip()), "")
    delimiter = next((each for each in (",", ";", "\t") if each in first), ",")
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
    table = _cells(reader)
    begun = next(table, None)
    if begun is None:
        return None, iter(())
    if all(_is_number(cell) for cell in begun):
        return None, itertools.chain([begun], table)
    return [cell.strip() for cell in begun], table


def _cells(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from (cells for cells in reader if cells)
    except csv.Error as error:
        raise InvalidArgument(f"the table is not sound CSV: {error}", param=_FIELD) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def _lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of a text. Raises InvalidArgument for one that is too long, and for what is not UTF-8."""
    number = 0
    while line := stream.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise InvalidArgument(f"line {number} is longer than {_LONGEST_LINE} bytes", param=_FIELD)
        try:
            yield line.decode("utf-8-sig" if number == 0 else "utf-8")
        except UnicodeDecodeError:
            raise InvalidArgument(f"line {number} is not UTF-8 text", param=_FIELD) from None
        number += 1


# -- JSON --------------------------------------------------------------------------------------


def _from_json(stream: BinaryIO, columns: Columns, writer: _Writer, limits: RowLimits) -> ReadRows:
    """A document with all rows, or a row on each line."""
    first = stream.readline(_LONGEST_LINE)
    try:
        value = orjson.loads(first.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        value = None
    stream.seek(0)
    if value is not None and not _is_document(value, columns):
        return _from_json_lines(stream, columns, writer)
    text = stream.read(limits.document_bytes + 1)
    if len(text) > limits.document_bytes:
        raise PayloadTooLarge(
            f"a JSON document may have {limits.document_bytes} bytes; send more rows as JSON lines, CSV or "
            "npy",
            param=_FIELD,
        )
    try:
        value = orjson.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is not valid JSON: {error.msg}", code="MALFORMED_JSON") from None
    fields: dict[str, Any] = {}
    if isinstance(value, dict):
        if _FIELD not in value:
            raise InvalidArgument(f"field '{_FIELD}' is missing", param=_FIELD)
        rows = value.pop(_FIELD)
        fields = value
    else:
        rows = value
    if not isinstance(rows, list):
        raise InvalidArgument(f"field '{_FIELD}' must be a list of rows", param=_FIELD)
    _write_values(rows, columns, writer)
    return writer.done("JSON", fields=fields)


def _from_json_lines(stream: BinaryIO, columns: Columns, writer: _Writer) -> ReadRows:
    lines = (line for line in _lines(stream) if line.strip())
    for chunk in _chunks(lines):
        _write_values(chunk, columns, writer, parsed=False)
    return writer.done("JSON lines")


def _write_values(values: Sequence[Any], columns: Columns, writer: _Writer, *, parsed: bool = True) -> None:
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        rows = np.empty((len(chunk), columns.size), np.float32)
        for index, value in enumerate(chunk):
            row = writer.rows + index
            if not parsed:
                try:
                    value = orjson.loads(value)
                except orjson.JSONDecodeError as error:
                    raise InvalidArgument(f"row {row} is not valid JSON: {error.msg}", param=_FIELD) from None
            rows[index] = columns.read(value, row)
        writer.array(rows.reshape(len(chunk), *columns.shape))


def _is_document(value: Any, columns: Columns) -> bool:
    """Whether a JSON value is all rows, and not one."""
    if isinstance(value, dict):
        return _FIELD in value
    depth, inner = 0, value
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    return depth > len(columns.shape) or (depth > 0 and isinstance(inner, dict))


# -- NumPy -------------------------------------------------------------------------------------


def _from_npy(source: Path, columns: Columns, writer: _Writer) -> ReadRows:
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _not_numpy(error) from None
    _write_array(array, columns, writer)
    return writer.done("npy")


def _from_npz(source: Path, columns: Columns, writer: _Writer, limits: RowLimits) -> ReadRows:
    try:
        with zipfile.ZipFile(source) as archive:
            names = [each.filename.removesuffix(".npy") for each in archive.infolist()]
            name = _FIELD if _FIELD in names else names[0] if len(names) == 1 else ""
            if not name:
                raise InvalidArgument(
                    f"the npz holds {len(names)} arrays; call the one with the rows '{_FIELD}'", param=_FIELD
                )
            if archive.getinfo(f"{name}.npy").file_size > 8 * limits.values:
                raise PayloadTooLarge("the npz is too large when unpacked", param=_FIELD)
        with np.load(source, allow_pickle=False) as arrays:
            array = arrays[name]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _not_numpy(error) from None
    _write_array(array, columns, writer)
    return writer.done("npz")


def _write_array(array: Array, columns: Columns, writer: _Writer) -> None:
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(f"the array is of {array.dtype.str}; send numbers", param=_FIELD)
    if array.ndim < 2 or array.shape[1:] not in (columns.shape, (columns.size,)):
        wanted = ", ".join(map(str, columns.shape))
        raise InvalidArgument(
            f"the array has shape {list(array.shape)}, the model takes [rows, {wanted}]", param=_FIELD
        )
    for start in range(0, len(array), _CHUNK):
        with np.errstate(over="ignore"):  # what is too large becomes an infinity, which is refused
            rows = np.asarray(array[start : start + _CHUNK], dtype=np.float32)
        writer.array(rows.reshape(len(rows), *columns.shape))


def _not_numpy(error: Exception) -> InvalidArgument:
    if any(word in str(error).lower() for word in ("pickle", "python objects")):
        return InvalidArgument("the array holds Python objects, which are never loaded", param=_FIELD)
    return InvalidArgument("the file is a damaged npy or npz", param=_FIELD)
