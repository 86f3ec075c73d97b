"""A table with a row for each scan: which of its columns are transmitters, and what says "not heard"."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from nonet.runtime.errors import InvalidArgument
from nonet.services.floor_identification.reading import ReadLimits, read_file

FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"
LIMITS = ReadLimits()


def read(*rows: str) -> dict[str, list[float]]:
    """Readings of each transmitter by scan, 0 where it was not heard."""
    scans, _ = read_file(io.BytesIO("\n".join(rows).encode()), LIMITS)
    dense = scans.dense()
    return {name: dense[:, index].tolist() for index, name in enumerate(scans.transmitters)}


@pytest.mark.parametrize(
    "silent",
    ["", "0", "100", "0.0", "-0", "nan", "NaN", "NA", "null", "None", "-", "?", "-inf", "-999", "200", "1"],
)
def test_what_cannot_be_a_reading_is_not_heard(silent: str) -> None:
    found = read(
        f"id,{FIRST},{SECOND}", f"a,-50,{silent}", f"b,{silent},-60", f"c,{silent},{silent}", "d,-70,-71"
    )
    assert found == {FIRST: [-50, 0, 0, -70], SECOND: [0, -60, 0, -71]}


def test_zero_and_the_mark_of_the_public_sets_are_not_heard_in_rows_of_readings_either() -> None:
    found = read("scan,bssid,rssi", f"a,{FIRST},-50", f"a,{SECOND},0", f"b,{FIRST},100", f"b,{SECOND},-60")
    assert found == {FIRST: [-50, 0], SECOND: [0, -60]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((f"id,{FIRST},{SECOND}", "a,40,70", "b,35,100", "c,12,80"), "line 2: .*got 40 in column '02:00"),
        ((f"id,{FIRST},{SECOND},WAP3,WAP4", "a,-50,-60,-70,-70", "b,-50,37,-70,-70"), "line 3: .*got 37 in"),
        ((f"id,{FIRST},{SECOND}", "a,-50,inf", "b,-60,-60", "c,7,8"), "line 2: .*got inf"),
        ((f"id,{FIRST}", "a,-50", "b,loud"), "line 3: .*'loud' in column '02:00"),
    ],
    ids=["signal quality in percent", "one odd number", "infinity", "a text"],
)
def test_other_impossible_numbers_are_refused_with_their_place(rows: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        read(*rows)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("lat", ("-23.55", "-23.55001")),
        ("Longitude", ("-46.63", "-46.6300")),
        ("pos_x", ("-12.25", "-13.5")),
        ("etage", ("1", "2")),
        ("etage", ("-1", "3")),
        ("label", ("B1", "F1")),
        ("phone", ("Pixel 7", "")),
        ("timestamp", ("1700000000000", "1700000000001")),
        ("rumbo", ("-90.5", "12.0")),
        ("Floor", ("-1", "-2")),
        ("", ("0", "1")),
        ("notes", ("", "")),
    ],
)
def test_beside_addresses_what_is_none_is_not_learnt_from(column: str, values: tuple[str, str]) -> None:
    first, second = values
    found = read(f"id,{column},{FIRST},{SECOND}", f"a,{first},-50,100", f"b,{second},100,-60")
    assert found == {FIRST: [-50, 0], SECOND: [0, -60]}


@pytest.mark.parametrize(
    "rows",
    [
        (f"id,eduroam,{FIRST}", "a,-40,-50", "b,-41,-60"),
        ("id,Library Floor 2,Cafe", "a,-40,-50", "b,-41,-60"),
        ("id,Library,Cafe", "a,-40.5,-50", "b,-41,-60"),
        ("id,Library,etage", "a,-40,-1", "b,-41,-2"),
    ],
    ids=["a name among addresses", "a word in a name", "fractions", "small numbers"],
)
def test_columns_that_could_be_either_are_named_in_the_refusal(rows: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot be told whether the columns '(eduroam|Library|etage)"):
        read(*rows)


@pytest.mark.parametrize(
    "names",
    [("WAP001", "WAP002"), ("b3001", "b3002", "b3003", "b3004"), ("Library", "Cafe"), ("a" * 40, "b" * 40)],
    ids=["numbered", "a series", "network names", "hashes"],
)
def test_names_of_other_kinds_are_transmitters_too(names: tuple[str, ...]) -> None:
    count = len(names)
    found = read(",".join(["id", *names]), "a" + ",-50" * count, "b" + ",100" * count, "c" + ",-61" * count)
    assert found == {name: [-50, 0, -61] for name in names}


def test_fractions_are_readings_where_the_name_is_an_address() -> None:
    assert read(f"id,{FIRST}", "a,-50.5", "b,-60.25") == {FIRST: [-50.5, -60.25]}


def test_the_address_of_a_phone_does_not_make_a_row_for_each_reading_of_it() -> None:
    found = read(
        f"id,mac,level,{FIRST},{SECOND}", "a,0a:0b:0c:0d:0e:0f,2,-50,-60", "b,0a:0b:0c:0d:0e:0f,3,-51,-61"
    )
    assert found == {FIRST: [-50, -51], SECOND: [-60, -61]}


def test_columns_in_two_spellings_of_an_address_are_one_transmitter() -> None:
    assert read(f"id,{FIRST},0200.0000.0001", "a,-50,-40", "b,-60,0") == {FIRST: [-40, -60]}


def test_a_table_of_nothing_but_labels_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=re.escape("has no readings")):
        read("id,etage,who", "a,1,x", "b,2,y")
    with pytest.raises(InvalidArgument, match="one for each"):
        read("id,floor,lat", "a,1,2", "b,2,3")


def test_a_column_that_is_dropped_leaves_the_others_where_they_were() -> None:
    found = read(f"id,rumbo,{FIRST},humor,{SECOND}", "a,-1.5,-50,-2.5,-60", "b,-2,-51,-3.5,0")
    assert found == {FIRST: [-50, -51], SECOND: [-60, 0]}
    assert np.isfinite(list(found.values())).all()
