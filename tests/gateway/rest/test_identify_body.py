"""Bodies of identify requests: read as a JSON parser reads them, a scan at a time."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.tasks.identify_body import LONGEST_SCAN, MAX_SCANS, read_scans
from nonet.runtime.errors import InvalidArgument, ServingError, Unprocessable

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", '\\"', "{", "}}", "[", "]", '{"a":[', "é", "\n"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-200, 200) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
RSSI = st.dictionaries(NAMES, st.floats(-150, 0) | JSON, max_size=5)
SCANS = st.lists(st.fixed_dictionaries({"rssi": RSSI}, optional={"id": NAMES}), min_size=1, max_size=5)


def at_once(body: bytes) -> list[bytes]:
    """The scans of a body as a parser of the whole of it sees them; ValueError if it has none."""
    value = orjson.loads(body)
    if not isinstance(value, dict) or value.keys() != {"scans"} or not isinstance(value["scans"], list):
        raise ValueError
    if not 1 <= len(value["scans"]) <= MAX_SCANS:
        raise ValueError
    for scan in value["scans"]:
        if not isinstance(scan, dict) or not isinstance(scan.get("rssi"), dict):
            raise ValueError
        if not scan.keys() <= {"id", "rssi"} or not isinstance(scan.get("id"), str | int | None):
            raise ValueError
    return [orjson.dumps(scan["rssi"]) for scan in value["scans"]]


@given(scans=SCANS, indent=st.sampled_from([None, 1]), plain=st.booleans())
def test_scans_come_out_as_a_parser_of_the_whole_body_sees_them(
    scans: list[Any], indent: int | None, plain: bool
) -> None:
    body = json.dumps({"scans": scans}, indent=indent, ensure_ascii=plain).encode()
    assert read_scans(body) == at_once(body)


@given(
    scans=SCANS,
    cut=st.integers(0, 400),
    put=st.sampled_from([b"", b"}", b"]", b",", b'"', b"{", b"\\", b" "]),
)
def test_a_damaged_body_is_refused_wherever_a_parser_of_the_whole_body_refuses_it(
    scans: list[Any], cut: int, put: bytes
) -> None:
    whole = json.dumps({"scans": scans}).encode()
    body = whole[:cut] + put + whole[cut + 1 :]
    try:
        expected = at_once(body)
    except ValueError:
        with pytest.raises(ServingError):
            read_scans(body)
    else:
        assert read_scans(body) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b" \n", "empty"),
        (b"{", "valid JSON: the name of a field was expected"),
        (b"hello", "valid JSON: a JSON value was expected at byte 0"),
        (b'{"scans": [{"rssi": {}},]}', "a JSON value was expected at byte 24"),
        (b'{"scans": [{"rssi": {}} {"rssi": {}}]}', "',' was expected at byte 24"),
        (b'{"scans": [{"rssi": {}}],}', "the name of a field was expected at byte 25"),
        (b'{"scans": [{"rssi": {}}]}}', "the end was expected at byte 25"),
        (b'{"scans": [{"rssi": {"a": -40}', "scans[0] does not end"),
        (b'{"scans": [{"rssi": {"a', "scans[0] does not end"),
        (b'{"scans": [{"rssi": {]}]}', "in scans[0]"),
        (b'{"scans": [{"rssi": {"a": ' + b"[" * 300, "scans[0]' has too many"),
        (b'{"scans": ' + b"[" * 5000, "scans[0]' has too many"),
        (b'{"scans": []}', "empty"),
    ],
)
def test_malformed_bodies_are_refused_with_the_place(body: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_scans(body)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "JSON object with 'scans'"),
        (b"{}", "JSON object with 'scans'"),
        (b'{"scans": null}', "'scans' must be a list"),
        (b'{"scans": [{"rssi": {}}], "model": "x"}', "unknown field 'model'"),
        (b'{"scans": [{"rssi": {}}], "scans": [{"rssi": {}}]}', "repeated"),
        (b'{"scans": [{"rssi": {}}, [1]]}', "scans[1]"),
        (b'{"scans": [{"rssi": {}, "id": [1]}]}', "scans[0]"),
    ],
)
def test_json_of_another_structure_is_refused_with_the_field(body: bytes, words: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        read_scans(body)
    assert words in refused.value.message


def test_the_longest_scan_is_taken_and_a_longer_one_refused() -> None:
    room = LONGEST_SCAN - len(b'{"rssi":{"":-40}}')
    assert len(read_scans(b'{"scans":[{"rssi":{"%s":-40}}]}' % (b"a" * room))) == 1
    with pytest.raises(InvalidArgument, match=rf"scans\[0\].*{LONGEST_SCAN} bytes"):
        read_scans(b'{"scans":[{"rssi":{"%s":-40}}]}' % (b"a" * (room + 1)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"scans":[' + b'{"rssi":{}},' * 400_000 + b"{}]}",
        b'{"scans":[' + b"[]," * 1_500_000 + b"[]]}",
        b'{"x":[' + b"[]," * 1_500_000 + b'[]],"scans":[]}',
        b'{"scans":[{"rssi":{' + b",".join(b'"%x":-9' % each for each in range(400_000)) + b"}}]}",
    ],
    ids=["too many scans", "no scans", "another field", "a scan that is too long"],
)
def test_what_is_refused_is_never_parsed_as_a_whole(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ServingError):
            read_scans(body)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_large_body_is_parsed_a_scan_at_a_time() -> None:
    """What is in memory is what comes out, not the objects that it stands for."""
    scan = orjson.dumps({"rssi": {f"02:00:00:00:{i >> 8:02x}:{i & 255:02x}": -40.5 for i in range(400)}})
    body = b'{"scans":[' + b",".join([scan] * 1000) + b"]}"
    tracemalloc.start()
    try:
        scans = read_scans(body)
        left, most = tracemalloc.get_traced_memory()
        assert most < left + (1 << 20)
    finally:
        tracemalloc.stop()
    assert len(scans) == 1000
