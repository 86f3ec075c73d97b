"""Files of scans in every form become the same scans, and what cannot is refused with its place."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.errors import (
    InvalidArgument,
    PayloadTooLarge,
    ServingError,
    Unprocessable,
    UnsupportedMediaType,
)
from nonet.runtime.scans import Scans
from nonet.services.floor_identification import UploadLimits, read_upload
from nonet.services.floor_identification.reading import ReadLimits, read_file

LIMITS = ReadLimits(scans=1000, readings=10_000, decoded_bytes=1 << 20)
NAMES = st.text(st.characters(categories=["L", "N"], max_codepoint=0x17F), min_size=1, max_size=8)
# As columns of their own some names mean something else (floor, longitude, ...): no words here.
TRANSMITTERS = st.text("äß0123456789", min_size=1, max_size=8).map(lambda name: f"t-{name}")
BUILDINGS = st.dictionaries(
    NAMES,
    st.dictionaries(TRANSMITTERS, st.integers(-120, -10), min_size=1, max_size=6),
    min_size=1,
    max_size=6,
)


def read(content: bytes) -> Scans:
    return read_file(io.BytesIO(content), LIMITS)[0]


def as_dict(scans: Scans) -> dict[str, dict[str, float]]:
    return {
        name: {
            scans.transmitters[column]: float(power)
            for column, power in zip(
                scans.transmitter[start:end].tolist(), scans.rssi[start:end].tolist(), strict=True
            )
        }
        for name, start, end in zip(
            scans.ids, scans.offsets[:-1].tolist(), scans.offsets[1:].tolist(), strict=True
        )
    }


@given(building=BUILDINGS, shuffle=st.randoms(use_true_random=False))
def test_all_forms_say_the_same(building: dict[str, dict[str, int]], shuffle: object) -> None:
    rows = [(scan, name, power) for scan, heard in building.items() for name, power in heard.items()]
    shuffle.shuffle(rows)  # type: ignore[attr-defined]
    long = "scan,bssid,rssi\n" + "".join(f"{scan},{name},{power}\n" for scan, name, power in rows)
    columns = sorted({name for heard in building.values() for name in heard})
    wide = ",".join(["id", *columns]) + "\n"
    for scan, heard in building.items():
        wide += ",".join([scan, *(str(heard.get(name, "")) for name in columns)]) + "\n"
    items = [{"id": scan, "rssi": heard} for scan, heard in building.items()]
    for content in (long.encode(), wide.encode(), gzip.compress(long.encode()), json.dumps(items).encode()):
        assert as_dict(read(content)) == building


@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_anything_at_all_is_read_or_refused(content: bytes) -> None:
    try:
        read(content)
    except ServingError as error:
        assert error.http_status in (400, 413, 415, 422)


def test_the_strongest_reading_counts_and_spellings_are_alike() -> None:
    text = (
        b"scan,bssid,rssi\na,AA-BB-CC-DD-EE-FF,-80\na,aa:bb:cc:dd:ee:ff,-40\na,aabbccddeeff,-60\na,net,-0.5\n"
    )
    assert as_dict(read(text)) == {"a": {"aa:bb:cc:dd:ee:ff": -40, "net": -1}}


def test_a_scan_without_an_id_is_named_by_its_position() -> None:
    text = b'[{"rssi": {"a": -4}}, {"id": null, "rssi": {"a": -5}}, {"id": 7, "rssi": {"a": -6}}]'
    assert list(as_dict(read(text))) == ["0", "1", "7"]


def test_the_columns_of_the_public_data_sets_are_known() -> None:
    uji = b"WAP001,WAP002,LONGITUDE,LATITUDE,FLOOR,BUILDINGID\n100,-70,1.5,2.5,0,1\n-50,100,1,2,3,1\n"
    assert as_dict(read(uji)) == {"0": {"WAP002": -70}, "1": {"WAP001": -50}}
    kaggle = b"obs,ap,rssi\r\n0,40,-77\r\n0,21,-74\r\n"
    assert as_dict(read(kaggle)) == {"0": {"40": -77, "21": -74}}
    marked = b"\xef\xbb\xbfscan,ap,rssi,freq,ssid_id\n1,2,-50,2412,9\n"
    assert as_dict(read(marked)) == {"1": {"2": -50}}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", InvalidArgument),
        (b"[]", InvalidArgument),
        (b"{}", Unprocessable),
        (b'{"scans": 5}', Unprocessable),
        (b"scan,bssid,rssi\n" + b"a,b,-5\n" * 10_001, PayloadTooLarge),
        (b"scan,bssid,rssi\n" + b"".join(b"%d,b,-5\n" % n for n in range(1001)), PayloadTooLarge),
        (gzip.compress(b"scan,bssid,rssi\n" + b"a,b,-5\n" * 200_000), PayloadTooLarge),
        (b"x" * (5 << 20), InvalidArgument),
        (b"%PDF-1.7", UnsupportedMediaType),
        (b"\x89PNG\r\n\x1a\n", UnsupportedMediaType),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, kind: type[ServingError]) -> None:
    with pytest.raises(kind):
        read(content)


def test_an_upload_is_read_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The part of a file that is the upload; equal uploads have equal digests, however they are written."""
    text = b"scan,bssid,rssi\na,m,-40\nb,m,-50\n"
    body, output = tmp_path / "body", tmp_path / "scans"
    body.write_bytes(b"before" + text + b"after")
    fields = {"building": "x", "labelled": '{"scan": "a", "floor": 3}', "floors": "2"}
    found = read_upload(body, output, fields, offset=6, length=len(text))
    assert found.spec == {
        "building": "x",
        "scan": "a",
        "floor": 3,
        "position": None,
        "floors": 2,
        "names": None,
        "preset": "default",
        "seed": 0,
    }
    assert found.size == {"scans": 2, "transmitters": 1, "readings": 2}
    assert as_dict(Scans.load(output)) == {"a": {"m": -40}, "b": {"m": -50}}
    scans = [{"id": "a", "rssi": {"m": -40}}, {"id": "b", "rssi": {"m": -50}}]
    first = {"id": "a", "rssi": {"m": -40, "n": -60}}
    turned = {"id": "a", "rssi": {"n": -60, "m": -40}}
    digests = []
    for scan in (first, turned):
        body.write_text(json.dumps({"building": "x", "scans": [scan], "labelled": {"scan": "a", "floor": 1}}))
        digests.append(read_upload(body, output, {}).digest)
    assert digests[0] == digests[1]
    labelled = {"scan": "a", "floor": 3}
    body.write_text(json.dumps({"building": "x", "scans": scans, "labelled": labelled, "floors": 2}))
    assert read_upload(body, output, {}).digest == found.digest
    body.write_text(json.dumps({"building": "x", "scans": scans, "labelled": labelled}))
    assert read_upload(body, output, {}).digest != found.digest
    with pytest.raises(Unprocessable, match="give it once"):
        read_upload(body, output, {"building": "y"})


def test_a_file_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"[" + b'{"rssi":{}},' * 2_000_000 + b'{"rssi":{}}]')
    limits = UploadLimits(memory_bytes=200 << 20)
    with pytest.raises((PayloadTooLarge, InvalidArgument)):
        read_upload(body, tmp_path / "scans", {}, limits=limits)


def test_the_process_that_reads_loads_no_more_than_it_needs() -> None:
    """What it loads is most of the time that a small upload takes."""
    code = "import sys, nonet.services.floor_identification.upload_process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not {"onnx", "onnxruntime", "pydantic", "PIL"} & set(loaded.split())
