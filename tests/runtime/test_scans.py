"""Scans in compressed rows: what is accepted, what is kept, and that a file gives back what was saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge
from nonet.runtime.scans import Scans, is_address, transmitter_key

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8)
READINGS = st.dictionaries(NAMES, st.integers(-150, 0).map(float), max_size=5)
UPLOADS = st.dictionaries(NAMES, READINGS, max_size=6)


@given(UPLOADS)
def test_every_reading_of_an_upload_is_in_its_row(upload: dict[str, dict[str, float]]) -> None:
    scans = Scans.build(upload.items())
    assert scans.ids == tuple(upload)
    dense = scans.dense()
    column = {name: index for index, name in enumerate(scans.transmitters)}
    heard = [{name: value for name, value in readings.items() if value} for readings in upload.values()]
    assert int((dense < 0).sum()) == len(scans.rssi) == sum(map(len, heard))
    for row, readings in zip(dense, heard, strict=True):
        for name, value in readings.items():
            assert row[column[name]] == min(value, -1.0)


@given(UPLOADS)
def test_a_file_gives_back_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, upload: dict[str, dict[str, float]]
) -> None:
    scans = Scans.build(upload.items())
    path = tmp_path_factory.mktemp("scans") / "scans.safetensors"
    scans.save(path)
    again = Scans.load(path)
    assert (again.ids, again.transmitters) == (scans.ids, scans.transmitters)
    for name in ("offsets", "transmitter", "rssi"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scans, name))


def test_of_several_readings_of_a_transmitter_the_strongest_is_kept() -> None:
    pairs = [("AA:BB:CC:00:11:22", -80.0), ("aa-bb-cc-00-11-22", -60.0), ("aabbcc001122", -70.0)]
    scans = Scans.build([("one", pairs)])
    assert scans.transmitters == ("aa:bb:cc:00:11:22",)
    assert scans.rssi.tolist() == [-60.0]
    table = Scans.from_readings(
        ("one",), ("a",), np.zeros(3, int), np.zeros(3, int), np.array([-80, -60, -70])
    )
    assert table.rssi.tolist() == [-60.0]


@pytest.mark.parametrize(
    "spelling",
    [
        "0A:1B:2C:03:4d:5e",
        "0a-1b-2c-03-4d-5e",
        "0a1b.2c03.4d5e",
        "0A1B-2C03-4D5E",
        "0a1b:2c03:4d5e",
        "0a1b2c034d5e",
        "0x0A1B2C034D5E",
        "0a1b2c-034d5e",
        "0a1b2c:034d5e",
        "a:1b:2c:3:4d:5e",
        "A-1B-2C-3-4D-5E",
        "0a.1b.2c.03.4d.5e",
        "0a 1b 2c 03 4d 5e",
        "0a_1b_2c_03_4d_5e",
        " [0A:1B:2C:03:4D:5E] ",
        "'0a:1b:2c:03:4d:5e'",
    ],
)
def test_every_spelling_of_an_address_is_one(spelling: str) -> None:
    assert transmitter_key(spelling) == "0a:1b:2c:03:4d:5e"
    assert is_address(spelling)
    scans = Scans.build([("one", {spelling: -50.0, "0a:1b:2c:03:4d:5e": -60.0})])
    assert (scans.transmitters, scans.rssi.tolist()) == (("0a:1b:2c:03:4d:5e",), [-50.0])


@pytest.mark.parametrize(
    "name", ["Library 2", "0a:1b:2c:03:4d", "0a:1b-2c:03:4d:5e", "0a:1b:2c:03:4d:5e:6f", "9"]
)
def test_what_is_no_address_stays_as_it_is(name: str) -> None:
    assert transmitter_key(f" {name} ") == name
    assert not is_address(name)


def test_zero_is_not_heard() -> None:
    """No receiver reads 0 dBm: it stands for nothing, as -0.0 does, and must not be the loudest of all."""
    scans = Scans.build([("one", {"a": 0.0, "b": -50.0}), ("two", {"a": -0.0})])
    assert (scans.ids, scans.transmitters, scans.rssi.tolist()) == (("one", "two"), ("b",), [-50.0])
    table = Scans.from_readings(
        ("one",), ("a", "b"), np.zeros(3, int), np.array([0, 1, 1]), np.array([0, -60, 0])
    )
    assert (table.transmitter.tolist(), table.rssi.tolist()) == ([1], [-60.0])


@given(st.text(max_size=20))
def test_a_transmitters_key_is_its_own_key(name: str) -> None:
    assert transmitter_key(transmitter_key(name)) == transmitter_key(name)


@pytest.mark.parametrize("value", [1.0, -151.0, float("nan"), float("inf")])
def test_a_value_out_of_range_is_refused_with_the_range(value: float) -> None:
    with pytest.raises(InvalidArgument, match="-150 to 0"):
        Scans.build([("one", {"a": value})])


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "\ud800"])
def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        Scans.build([(name, {"a": -50.0})])
    with pytest.raises(InvalidArgument):
        Scans.build([("one", {f"{name}": -50.0})])


def test_repeated_ids_and_too_much_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="twice"):
        Scans.build([("one", {}), ("one", {})])
    with pytest.raises(PayloadTooLarge, match="2 scans"):
        Scans.build([(str(index), {}) for index in range(3)], most_scans=2)
    with pytest.raises(PayloadTooLarge, match="3 readings"):
        Scans.build([("one", {str(index): -50.0 for index in range(4)})], most_readings=3)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    good = Scans.build([("a", {"x": -50.0, "y": -60.0}), ("b", {"x": -70.0})])
    parts = (good.ids, good.transmitters, good.offsets, good.transmitter, good.rssi)
    wrong = [
        (2, good.offsets[:-1]),
        (2, np.array([0, 3, 2], np.int64)),
        (2, good.offsets.astype(np.int32)),
        (3, np.array([1, 0, 0], np.int32)),
        (3, np.array([0, 2, 0], np.int32)),
        (4, np.array([-50, 1, -70], np.float32)),
        (1, ("x", "x")),
    ]
    for place, value in wrong:
        with pytest.raises(InvalidArgument):
            Scans(*parts[:place], value, *parts[place + 1 :])  # type: ignore[arg-type]


def test_other_files_and_cut_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scans"
    Scans.build([("a", {"x": -50.0})]).save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidArgument):
            Scans.load(path)
    save_file({"rssi": np.zeros(1, np.float32)}, path)
    with pytest.raises(InvalidArgument, match="not a file of scans"):
        Scans.load(path)
    path.write_bytes(whole)
    with pytest.raises(PayloadTooLarge):
        Scans.load(path, most_readings=0)


def test_taking_rows_keeps_their_readings() -> None:
    scans = Scans.build([("a", {"x": -50.0}), ("b", {}), ("c", {"x": -60.0, "y": -70.0})])
    taken = scans.take(np.array([2, 0]))
    assert taken.ids == ("c", "a")
    np.testing.assert_array_equal(taken.dense(), [[-60, -70], [-50, 0]])
    np.testing.assert_array_equal(taken.dense(("y", "unknown")), [[-70, 0], [0, 0]])


def test_a_million_readings_stream_in_bounded_memory() -> None:
    def upload() -> Iterator[tuple[str, dict[str, float]]]:
        for scan in range(20_000):
            yield str(scan), {f"{(scan * 7 + index) % 2000}": -40.0 - index for index in range(50)}

    process = psutil.Process()
    before = process.memory_info().rss
    scans = Scans.build(upload())
    grown = process.memory_info().rss - before
    assert len(scans.rssi) == 1_000_000
    assert grown < 100 << 20
