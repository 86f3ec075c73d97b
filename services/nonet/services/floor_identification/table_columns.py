"""Which columns of a table with a row for each scan are transmitters, by their names and by what they hold.

Coordinates look like readings (Sao Paulo lies at -23.55, -46.63), floors and labels are numbers, and every
source marks what was not heard in its own way. So nothing is taken for a transmitter on trust: a column is
one by its name (an address, its hash, ``AP 7``) or, in tables without such names, because all
it holds are readings. A column that could be either is named in the refusal.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Final

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.scans import NOT_HEARD, SILENT, STRONGEST, WEAKEST, is_address, out_of_range

__all__ = ["TableColumns", "number"]

_NO_TRANSMITTERS: Final = """
    longitude latitude lat lon lng long gps east north easting northing ecoord ncoord x y z xm ym zm
    coord coords coordinate coordinates pos position point pointid location loc place area zone region
    site siteid height altitude alt elevation floor floors floorid floornumber floorlabel storey story
    level room roomid space spaceid relativeposition building buildingid scene sceneid label class
    target truth user userid phone phoneid device deviceid model time timestamp datetime date tms ms
    sampletimes samples path pathid walk session trace route step index row number no count accuracy
    battery temperature humidity pressure azimuth heading orientation direction angle speed unnamed
"""
_WORDS: Final = frozenset(_NO_TRANSMITTERS.split())
"""Names of columns, without case and punctuation, that are no transmitters."""

_MISSING: Final = frozenset(
    (
        "",
        "0",
        "100",
        "nan",
        "na",
        "n/a",
        "#n/a",
        "null",
        "none",
        "nil",
        "-",
        "--",
        "?",
        "-inf",
        "0.0",
        "100.0",
    )
)
_HASH = re.compile(r"(?:[0-9A-Fa-f]{16,}|[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12})")
_NUMBERED = re.compile(r"(.*?\D)[ _.\-]?(\d+)")
_TRANSMITTERS: Final = (
    "ap wap mac bssid ssid rssi rss wifi beacon ble router anchor station tx transmitter bs node"
)
_STEMS: Final = frozenset(_TRANSMITTERS.split())
_MOST_MARKS: Final = 2  # numbers that mean "not heard" in one table, beside 0 and 100
_FAINTEST_LIKELY, _LOUDEST_LIKELY = -120.0, -10.0


@dataclasses.dataclass(slots=True)
class _Column:
    """What was seen of a column: how many readings, whether any is a fraction or hardly one, the first text,
    and the numbers that cannot be readings, each with the line it was first on."""

    name: str
    named: bool
    readings: int = 0
    fraction: bool = False
    unlikely: bool = False
    text: tuple[int, str] | None = None
    impossible: dict[float, int] = dataclasses.field(default_factory=dict)


class TableColumns:
    """The columns of one table, read cell by cell and judged at its end.

    Args:
        names: of all columns. identity: index of the one that names the scans, -1 if none does.
    """

    def __init__(self, names: Sequence[str], identity: int) -> None:
        self._columns = {
            index: _Column(name, is_address(name) or bool(_HASH.fullmatch(name)) or _numbered(name))
            for index, name in enumerate(names)
            if index != identity and name and _bare(name) not in _WORDS
        }

    def __bool__(self) -> bool:
        return bool(self._columns)

    def readings(self, row: Sequence[str], line: int) -> Iterator[tuple[str, float]]:
        """(transmitter, dBm) of what may be readings in a row. Raises InvalidArgument for a text where the
        column's name says that it is a transmitter."""
        for index, column in self._columns.items():
            text = row[index].strip()
            if text in _MISSING or text.lower() in _MISSING:
                continue
            value = number(text)
            if value is None:
                if column.named:
                    raise InvalidArgument(_no_number(text, line, column.name), param="scans")
                column.text = column.text or (line, text)
            elif value in (SILENT, NOT_HEARD):
                continue
            elif not WEAKEST <= value < STRONGEST:
                if len(column.impossible) <= _MOST_MARKS:
                    column.impossible.setdefault(value, line)
            else:
                column.readings += 1
                column.fraction |= value != int(value)
                column.unlikely |= not _FAINTEST_LIKELY <= value <= _LOUDEST_LIKELY
                yield column.name, value

    def others(self) -> set[str]:
        """Names of the columns that turned out to be no transmitters.

        Raises InvalidArgument that names the columns for which it cannot be told, or the first number that is
        neither a reading nor the table's mark for what was not heard.
        """
        columns = list(self._columns.values())
        by_name = [column for column in columns if column.named]
        marks = _marks([column for column in columns if column.named or column.readings])
        wrong = [
            (line, column.name, value)
            for column in by_name
            for value, line in column.impossible.items()
            if value not in marks
        ]
        if wrong:
            line, name, value = min(wrong, key=lambda each: each[0])
            raise InvalidArgument(
                f"line {line}: {out_of_range(value)} in column {name[:40]!r}", param="scans"
            )
        left = [column for column in columns if not column.named]
        whole = not any(column.fraction for column in by_name)
        other, unclear = set(), []
        for column in left:
            stray = column.text is not None or not column.impossible.keys() <= marks
            likely = not (stray or column.fraction or column.unlikely)
            if not column.readings or (by_name and (stray or (whole and column.fraction))):
                other.add(column.name)
            elif by_name or not likely or _WORDS & set(_words(column.name)):
                unclear.append(column)
        if unclear:
            raise _unclear(unclear)
        return other


def number(text: str) -> float | None:
    """The number that a text is; what Python alone reads, underscores and foreign digits, is none."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _marks(columns: Sequence[_Column]) -> set[float]:
    """The impossible numbers that stand for "not heard": one or two, each in several columns and in half of
    them or more. One odd number is a slip, and many are signal qualities in percent."""
    seen = collections.Counter(value for column in columns for value in column.impossible)
    if len(seen) > _MOST_MARKS:
        return set()
    return {
        value for value, count in seen.items() if 2 * count >= len(columns) and count >= min(2, len(columns))
    }


def _numbered(name: str) -> bool:
    """Whether a name is a word for a transmitter and a number: ``WAP001``, ``AP 2``."""
    match = _NUMBERED.fullmatch(name)
    return match is not None and match[1].lower().strip(" _.-") in _STEMS


def _bare(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[\W_]+", "", name.lower())


def _words(name: str) -> list[str]:
    """The words of a name, of three letters or more: ``posX_Room`` has pos and room."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]{2,}|[A-Z]{3,}", name) if len(word) > 2]


def _no_number(text: str, line: int, column: str) -> str:
    return (
        f"line {line}: rssi must be a number of dBm, got {text[:40]!r} in column {column[:40]!r}; is it a "
        "transmitter?"
    )


def _unclear(columns: Sequence[_Column]) -> InvalidArgument:
    """The refusal of columns that may be transmitters or not."""
    first = next((column for column in columns if column.text is not None), None)
    if first is not None and first.text is not None:
        return InvalidArgument(_no_number(first.text[1], first.text[0], first.name), param="scans")
    named = ", ".join(repr(column.name[:40]) for column in columns[:5])
    more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
    return InvalidArgument(
        f"it cannot be told whether the columns {named}{more} are transmitters: their names are no addresses "
        "and their numbers could be readings; leave out what is none, name a transmitter by its address, or "
        "send a row for each reading (scan, bssid, rssi)",
        param="scans",
    )
