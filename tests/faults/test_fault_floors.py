"""Case 51: strange scans are answered or refused."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.building_gateway import (
    BUILDINGS,
    identify,
    submitted,
    toy_settings,
    upload,
    wait_for,
)
from tests.support.running_server import RunningServer, assert_refused, running

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]
HOME = {"00:00:00:00:00:01": -40, "00:00:00:00:00:02": -60}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one fitted building, ``quick_home``, for tests that leave nothing behind."""
    root = tmp_path_factory.mktemp("floors") / "models"
    root.mkdir()
    with running(root, tmp_path_factory.mktemp("floors_server"), toy_settings()) as started:
        wait_for(started, submitted(started, "quick_home"), "succeeded")
        yield started


# -- case 51: scans to identify ---------------------------------------------------------------------


def test_case_51_a_scan_gets_a_floor_with_a_distribution(house: RunningServer) -> None:
    reply = identify(house, "quick_home", HOME, {"00:00:00:00:00:03": -50})
    assert reply.status_code == 200, reply.text
    first, second = reply.json()["floors"]
    for row in (first, second):
        assert set(row) == {"floor", "confidence", "known", "heard", "distribution"}
        assert list(row["distribution"]) == ["B1", "F1", "F2"]
        assert sum(row["distribution"].values()) == pytest.approx(1, abs=1e-4)
        assert row["distribution"][row["floor"]] == max(row["distribution"].values())
        assert 0 < row["confidence"] <= 1
    assert (first["heard"], second["heard"]) == (2, 1)
    for header in ("X-Model-Version", "X-Device", "X-Cache", "X-Batch-Size", "Server-Timing"):
        assert header in reply.headers
    assert identify(house, "quick_home", HOME, {"00:00:00:00:00:03": -50}).headers["X-Cache"] == "hit"


def test_case_51_scans_of_nowhere_have_no_confidence(house: RunningServer) -> None:
    """Empty, and unknown BSSIDs only: answered, with no floor; two known ones among 10,000 still
    tell the floor, if it is this building, which 10,000 that it has never heard speak against."""
    crowd = {f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}": -70 for number in range(10_000)}
    reply = identify(house, "quick_home", {}, {"ff:ff:ff:ff:ff:ff": -40}, crowd, {**crowd, **HOME})
    assert reply.status_code == 200, reply.text
    empty, foreign, crowded, home = reply.json()["floors"]
    for row in (empty, foreign, crowded):
        assert (row["floor"], row["confidence"], row["known"], row["heard"]) == (None, 0, False, 0)
        assert sum(row["distribution"].values()) == pytest.approx(1, abs=1e-4)
    alone = identify(house, "quick_home", HOME).json()["floors"][0]
    assert alone["known"] is True
    assert home == {**alone, "known": False, "confidence": pytest.approx(0, abs=1e-6)}


def test_case_51_one_transmitter_in_two_spellings_counts_once(house: RunningServer) -> None:
    both = {"00-00-00-00-00-01": -80, "00:00:00:00:00:01": -40, "000000000002": -60}
    assert identify(house, "quick_home", both).json() == identify(house, "quick_home", HOME).json()


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        ({"a": 1}, "-150 to 0"),
        ({"a": -151}, "-150 to 0"),
        ({"a": 1e300}, "-150 to 0"),
        ({"a": 100}, "got 100; leave out what was not heard"),
        ({"a": "-40"}, "number of dBm, got \"-40\" for 'a'"),
        ({"a": None}, "number of dBm, got null for 'a'"),
        ({"a": True}, "number of dBm, got true for 'a'"),
        ({"a": [1]}, "number of dBm, got a list for 'a'"),
        ({"a": {"b": 1}}, "number of dBm, got an object for 'a'"),
    ],
)
def test_case_51_values_out_of_range_are_refused_with_their_place(
    house: RunningServer, scan: dict[str, Any], words: str
) -> None:
    reply = house.http.post(
        f"{BUILDINGS}/quick_home/identify", json={"scans": [{"rssi": HOME}, {"rssi": scan}]}
    )
    assert_refused(reply, 400, "scan 1", words)
    assert reply.json()["error"]["param"] == "scans"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"scans": {}}', 422),
        (b'{"scans": []}', 400),
        (b'{"scans": [1]}', 422),
        (b'{"scans": [{}]}', 422),
        (b'{"scans": [{"rssi": []}]}', 422),
        (b'{"scans": [{"rssi": {}, "x": 1}]}', 422),
        (b'{"scans": [{"rssi": null}]}', 422),
        (b'{"scans": [{"rssi": {}, "id": {}}]}', 422),
        (b'{"scans": [{"rssi": {"a": -1e999}}]}', 400),
        (b'{"scans": [{"rssi": {"\\ud800": -40}}]}', 400),
        (b'{"scans": [{"rssi": {}}], "x": 1}', 422),
        (b'{"scans": [{"rssi": {"a": NaN}}]}', 400),
        (b'{"scans": [' + b",".join([b'{"rssi": {}}'] * 1025) + b"]}", 400),
        (b'{"scans": ' + b"[" * 5000, 400),
        (b'{"scans": [{"rssi": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}]}", 400),
    ],
)
def test_case_51_bodies_that_are_no_scans_are_refused(house: RunningServer, body: bytes, status: int) -> None:
    reply = house.http.post(
        f"{BUILDINGS}/quick_home/identify", content=body, headers={"Content-Type": "application/json"}
    )
    assert_refused(reply, status)


def test_case_51_unknown_buildings_and_path_tricks_are_not_found(house: RunningServer) -> None:
    assert_refused(identify(house, "elsewhere", HOME), 404, "quick_home")
    for name in ("..", "%2e%2e", "a%2fb", ".hidden", "x" * 200, "fasternet"):
        for path in (f"{BUILDINGS}/{name}", f"{BUILDINGS}/{name}/picture"):
            assert house.http.get(path).status_code in (400, 404), path
    assert_refused(house.http.put(f"{BUILDINGS}/quick_home"), 405)


@pytest.mark.parametrize(("power", "status"), [(-40, 200), (5, 400)], ids=["answered", "refused"])
def test_case_71_large_requests_are_out_of_memory_with_their_answer(
    house: RunningServer, power: int, status: int
) -> None:
    scan = {"rssi": {f"{number:032}": -50 for number in range(200)}}
    body = json.dumps({"scans": [scan] * 1000 + [{"rssi": {"a": power}}]}).encode()
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}

    def asked() -> int:
        reply = house.http.post(f"{BUILDINGS}/quick_home/identify", content=body, headers=headers)
        assert reply.status_code == status, reply.text[:500]
        return house.rss()

    before = max(asked() for _ in range(3))
    assert max(asked() for _ in range(10)) - before < 60 << 20


# -- case 51: scans to fit on -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"scans": []}, 400, "empty"),
        ({"scans": None}, 422, "scans"),
        ({"scans": [{"id": "a", "rssi": {"x": 5}}]}, 400, "-150 to 0"),
        ({"scans": [{"id": "a", "rssi": {"x": 100}}]}, 400, "got 100; leave out what was not heard"),
        ({"scans": [{"id": "a", "rssi": {"x": "5"}}]}, 422, "numbers"),
        ({"scans": [{"id": "a", "rssi": {"x": None}}]}, 422, "numbers, got null for 'x'"),
        ({"scans": [{"id": "a", "rssi": {"": -5}}]}, 400, "name"),
        ({"scans": [{"id": "a", "rssi": {"x" * 300: -5}}]}, 400, "name"),
        ({"scans": [{"id": "a", "rssi": {}}, {"id": "a", "rssi": {}}]}, 400, "twice"),
        ({"labelled": {"scan": "nobody", "floor": "F1"}}, 400, "nobody"),
        ({"labelled": {"scan": "a"}}, 422, "floor"),
        ({"labelled": None}, 422, "'labelled' is missing"),
        ({"labelled": "a=1"}, 422, "'labelled' must be an object"),
        ({"labelled": {"scan": "a", "floor": ""}}, 400, "floor"),
        ({"labelled": {"scan": "a", "floor": "F1", "position": 0}}, 400, "position"),
        ({"floors": 1}, 400, "2 to 16"),
        ({"floors": 17}, 400, "2 to 16"),
        ({"floors": "many"}, 422, "floors"),
        ({"floors": ["F1", "F1"]}, 400, "different"),
        ({"floors": 4}, 400, "3 scans"),
        ({"scans": [{"id": "a", "rssi": {}}]}, 400, "readings"),
        (
            {
                "labelled": {"scan": "d", "floor": "B1"},
                "scans": [*upload("")["scans"], {"id": "d", "rssi": {}}],
            },
            400,
            "readings",
        ),
        ({"floors": ["F1", "F2"]}, 400, "B1"),
        ({"floors": 2, "labelled": {"scan": "a", "floor": "B1", "position": -3}}, 400, "no floor -3"),
        ({"floors": ["B1", "F1"], "labelled": {"scan": "a", "floor": "B1", "position": 2}}, 400, "'F1'"),
        ({"preset": "best"}, 400, "preset"),
        ({"seed": -1}, 400, "seed"),
        ({"building": ""}, 400, "building"),
        ({"building": "../x"}, 400, "building"),
        ({"building": "a b"}, 400, "building"),
        ({"building": "x" * 65}, 400, "building"),
        ({"building": None}, 422, "building"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_case_51_uploads_that_cannot_be_fitted_are_refused_at_once(
    house: RunningServer, change: dict[str, Any], status: int, words: str
) -> None:
    body = {**upload("quick_x"), **change}
    assert_refused(house.http.post(BUILDINGS, json=body), status, words)
    assert house.http.get("/v1/jobs?state=queued,running").json()["data"] == []


LONG = "scan,bssid,rssi\na,m1,-40\na,m2,-60\nb,m2,-50\na,m1,-70\n"
WIDE = "id,WAP1,WAP2,LONGITUDE,FLOOR\na,-40,100,7.5,1\nb,,-50,7.5,2\n"


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"obs": [0, 0, 1], "ap": ["m1", "m2", "m2"], "rssi": [-40, -60, -50]})
    sink = io.BytesIO()
    writer.write_table(table, sink)
    return sink.getvalue()


def test_case_51_parquet_whose_values_cannot_be_read_is_refused(house: RunningServer) -> None:
    """Names that are not UTF-8, and moments that no Python value can hold."""
    pyarrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    ends = pyarrow.array([0, 2, 3], pyarrow.int32()).buffers()[1]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, ends, pyarrow.py_buffer(b"\xff\xfea")])
    fine = pyarrow.array([1, 1_000], pyarrow.timestamp("ns"))
    for scans in (broken, fine):
        sink = io.BytesIO()
        writer.write_table(pyarrow.table({"scan": scans, "ap": ["m1", "m2"], "rssi": [-40, -60]}), sink)
        fields = {"building": "quick_x", "labelled": '{"scan": "a", "floor": "B1"}'}
        reply = house.http.post(BUILDINGS, data=fields, files={"scans": ("scans", sink.getvalue())})
        assert_refused(reply, 400, "Parquet")


@pytest.mark.parametrize("form", ["long", "wide", "gzip", "json", "parquet"])
def test_case_51_scans_come_as_files_too(house: RunningServer, form: str) -> None:
    content: dict[str, Callable[[], bytes]] = {
        "long": LONG.encode,
        "wide": WIDE.encode,
        "gzip": lambda: gzip.compress(LONG.encode(), mtime=0),
        "json": lambda: json.dumps(upload("x")["scans"]).encode(),
        "parquet": parquet,
    }
    scan = "0" if form == "parquet" else "a"
    fields = {
        "building": f"quick_{form}",
        "labelled": json.dumps({"scan": scan, "floor": "B1"}),
        "floors": "2",
    }
    reply = house.http.post(BUILDINGS, data=fields, files={"scans": ("scans", content[form]())})
    assert reply.status_code == 202, reply.text
    alone = house.http.post(
        BUILDINGS, content=content[form](), params=fields, headers={"Content-Type": "text/csv"}
    )
    assert alone.status_code == 202, alone.text
    for each in (reply, alone):
        wait_for(house, each.json()["job"]["id"], "succeeded")
    assert house.http.get(f"{BUILDINGS}/quick_{form}").json()["version"] == "2"
    assert house.http.delete(f"{BUILDINGS}/quick_{form}").status_code == 204


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"scan,bssid,rssi\n", 400, "no rows"),
        (b"scan,bssid,rssi\na,m1,loud\n", 400, "line 2"),
        (b"scan,bssid,rssi\na,m1,nan\n", 400, "line 2"),
        (b"scan,bssid,rssi\na,m1,-151\n", 400, "line 2"),
        (b"scan,bssid,rssi\na,m1\n", 400, "line 2"),
        (b"scan,bssid,rssi\na,m1,-5\n\xff\xfe,m1,-5\n", 400, "UTF-8"),
        (b"scan,bssid,rssi\na," + b"m" * 5000 + b",-5\n", 400, "line"),
        (b"one column\n1\n", 400, "columns"),
        (b"scan;bssid;rssi\na;m1;-5\n", 400, "columns"),
        (b"scan\tbssid\trssi\na\tm1\t-5\n", 400, "columns"),
        ("scan,bssid,rssi\na,m1,-5\n".encode("utf-16"), 415, "CSV"),
        (b"scan,rssi,bssid,rssi\na,-5,m1,-6\n", 400, "'rssi' is there twice"),
        (b"scan,address,power\na,m1,-5\n", 400, "columns 'power'"),
        (b"scan,bssid,rssi\na,m1,-4_0\n", 400, "line 2"),
        ("scan,bssid,rssi\na,m1,-\u0664\u0660\n".encode(), 400, "line 2"),
        (b"scan,bssid,rssi\na,m1,-1e999\n", 400, "line 2"),
        (b"scan,bssid,rssi\na,,-5\n", 400, "name"),
        (b"scan,bssid,rssi\na,m\x001,-5\n", 400, "name"),
        (b'scan,bssid,rssi\na,"m1,-5\n', 400, "line 2"),
        (b"id,W1\na,-5\na,-6\n", 400, "twice"),
        (b"id," + b",".join(b"W%d" % column for column in range(20_001)) + b"\n", 413, "20000"),
        (gzip.compress(b"scan,bssid,rssi\na,m1,-5\n", mtime=0) + b"more", 400, "gzip"),
        (b"\x1f\x8b garbage", 400, "gzip"),
        (b"PAR1 garbage PAR1", 400, "Parquet"),
        (b"<html>", 415, "CSV"),
        (b"\x89PNG\r\n\x1a\n", 415, "CSV"),
        (b"\0\0\0\0", 415, "CSV"),
        (b'{"scans": ' + b"[" * 100_000, 400, "JSON"),
    ],
)
def test_case_51_files_that_are_no_scans_are_refused(
    house: RunningServer, content: bytes, status: int, words: str
) -> None:
    if content.startswith(b"PAR1"):
        pytest.importorskip("pyarrow")
    fields = {"building": "quick_x", "labelled": '{"scan": "a", "floor": "B1"}'}
    assert_refused(
        house.http.post(BUILDINGS, data=fields, files={"scans": ("scans.csv", content)}), status, words
    )


def test_case_51_a_million_readings_arrive_in_flat_memory(house: RunningServer) -> None:
    """25 MB of CSV, which is no memory of the gateway; and a gzip bomb, which is nobody's."""
    rows = [f"{scan},m{number},-{40 + number % 50}" for scan in range(10_000) for number in range(100)]
    text = ("scan,bssid,rssi\n" + "\n".join(rows) + "\n").encode()
    before = house.process.memory_info().rss
    peak = 0
    done = threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, house.process.memory_info().rss)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        fields = {"building": "quick_million", "labelled": '{"scan": "17", "floor": "B1"}'}
        reply = house.http.post(BUILDINGS, params=fields, content=text, headers={"Content-Type": "text/csv"})
        bomb = gzip.compress(b"0" * (1 << 30), 1, mtime=0)
        headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
        assert_refused(house.http.post(BUILDINGS, params=fields, content=bomb, headers=headers), 413)
        assert_refused(house.http.post(BUILDINGS, data=fields, files={"scans": ("scans", bomb)}), 400)
    finally:
        done.set()
        watching.join()
    assert reply.status_code == 202, reply.text
    assert peak - before < 24 << 20, f"{(peak - before) >> 20} MiB more"
    wait_for(house, reply.json()["job"]["id"], "succeeded")
    assert house.http.get(f"{BUILDINGS}/quick_million").json()["facts"]["scans"] == 10_000
    assert house.http.delete(f"{BUILDINGS}/quick_million").status_code == 204


def test_case_51_uploads_over_the_limit_are_refused_before_they_are_kept(
    start_server: Start, own_repository: Path
) -> None:
    """By the declared length at once, else as soon as it is passed; what is smaller may come in pieces."""
    server = start_server(own_repository, toy_settings(max_upload_bytes=50_000))
    fields = {"building": "quick_x", "labelled": '{"scan": "a", "floor": "B1"}'}
    headers = {"Content-Type": "text/csv"}
    large = b"scan,bssid,rssi\n" + b"a,m,-50\n" * 10_000

    def pieces(content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    for content in (large, pieces(large)):
        reply = server.http.post(BUILDINGS, params=fields, content=content, headers=headers)
        assert_refused(reply, 413, "50000")
    # Small as sent, large as meant.
    zipped = {**headers, "Content-Encoding": "gzip"}
    reply = server.http.post(BUILDINGS, params=fields, content=gzip.compress(large, mtime=0), headers=zipped)
    assert_refused(reply, 413)
    for broken in (b"", b"garbage", gzip.compress(large[:40_000], mtime=0)[:-20]):
        reply = server.http.post(BUILDINGS, params=fields, content=broken, headers=zipped)
        assert_refused(reply, 400)
    fine = large[:40_000]
    reply = server.http.post(BUILDINGS, params=fields, content=pieces(fine), headers=headers)
    assert reply.status_code == 202, reply.text
    reply = server.http.post(BUILDINGS, params=fields, content=gzip.compress(fine, mtime=0), headers=zipped)
    assert reply.status_code == 202, reply.text
    wait_for(server, reply.json()["job"]["id"], "succeeded")
