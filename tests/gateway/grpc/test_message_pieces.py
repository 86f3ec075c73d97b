"""Messages taken apart before they are parsed: the parser makes of the pieces what it makes of the whole."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.tasks.rpc_pieces import beside, contents
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge
from nonet.runtime.oip.messages import message

FIT, SCAN = message("nonet.v1.FitRequest"), message("nonet.v1.Scan")
SCANS, FILE = (FIT.DESCRIPTOR.fields_by_name[name].number for name in ("scans", "file"))

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
REQUESTS = st.fixed_dictionaries(
    {
        "building": TEXTS,
        "labelled_position": st.integers(-(2**31), 2**31 - 1),
        "seed": st.integers(0, 2**32 - 1),
        "floor_names": st.lists(TEXTS, max_size=3),
        "scans": st.lists(st.fixed_dictionaries({"id": TEXTS, "rssi": st.dictionaries(TEXTS, st.floats())})),
        "file": st.binary(max_size=300),
    }
)


def put_together(raw: bytes) -> Any:
    found = FIT.FromString(beside(raw, SCANS, FILE))
    assert not found.scans
    assert not found.file
    found.scans.extend(SCAN.FromString(piece) for piece in contents(raw, SCANS))
    for piece in contents(raw, FILE):
        found.file = piece
    return found


def facts(request: Any) -> Any:
    """What a request says, with NaN equal to itself, however its bytes were arranged."""
    plain = [request.building, request.labelled_position, request.seed, *request.floor_names, request.file]
    return plain, [
        (scan.id, sorted((name, struct.pack("d", power)) for name, power in scan.rssi.items()))
        for scan in request.scans
    ]


@given(fields=REQUESTS)
def test_the_pieces_are_the_whole(fields: dict[str, Any]) -> None:
    request = FIT(**fields)
    assert facts(put_together(request.SerializeToString())) == facts(request)


@given(fields=REQUESTS, cut=st.integers(0, 300), put=st.binary(max_size=3))
def test_what_the_parser_takes_comes_out_alike_and_all_else_is_refused(
    fields: dict[str, Any], cut: int, put: bytes
) -> None:
    whole = FIT(**fields).SerializeToString()
    raw = whole[:cut] + put + whole[cut + 1 :]
    try:
        expected = FIT.FromString(raw)
    except DecodeError:
        with pytest.raises((InvalidArgument, DecodeError)):
            put_together(raw)
        return
    try:
        found = put_together(raw)
    except InvalidArgument:
        # Groups, which proto3 does not have.
        assert any(byte & 7 in (3, 4) for byte in raw)
        return
    assert facts(found) == facts(expected)


@pytest.mark.parametrize(
    "raw", [b"\x0a", b"\x0a\x05abc", b"\x80", b"\x80" * 20, b"\x09\x00", b"\x0b\x0c", b"\x12\xff\xff"]
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        list(contents(raw, SCANS))
    with pytest.raises(InvalidArgument):
        beside(raw, SCANS)


def test_what_stands_beside_is_bounded() -> None:
    with pytest.raises(InvalidArgument, match="beside"):
        beside(FIT(floor_names=["a" * 100] * 1000).SerializeToString(), SCANS)


def test_what_has_too_many_parts_is_refused() -> None:
    part = FIT(scans=[{}]).SerializeToString()
    assert len(list(contents(part * (1 << 18), SCANS))) == 1 << 18
    with pytest.raises(PayloadTooLarge):
        beside(part * ((1 << 18) + 1), SCANS)
