"""Case 51: bodies and queries that are not the form, the JSON or the few fields that they say they are."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.bare_sockets import Wire
from tests.support.building_gateway import BUILDINGS, toy_settings, wait_for
from tests.support.running_server import RunningServer, assert_refused, running

LONG = b"scan,bssid,rssi\na,m1,-40\na,m2,-60\nb,m2,-50\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server for tests that leave nothing behind."""
    root = tmp_path_factory.mktemp("forms") / "models"
    root.mkdir()
    with running(root, tmp_path_factory.mktemp("forms_server"), toy_settings()) as started:
        yield started


def part(name: str, content: bytes, headers: str = "") -> bytes:
    head = f'--X\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n'
    return head.encode() + content + b"\r\n"


FIELDS = part("building", b"quick_x") + part("labelled", b'{"scan": "a", "floor": "B1"}')
TABLE = part("scans", LONG)
END = b"--X--\r\n"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (FIELDS + TABLE, 400, "closing boundary"),
        ((FIELDS + TABLE + END).replace(b"\r\n", b"\n"), 400, "boundary"),
        (FIELDS.replace(b"--X", b"--Y") + TABLE + END, 422, "building"),
        (END, 422, "scans"),
        (FIELDS + END, 422, "scans"),
        (FIELDS + TABLE + TABLE + END, 422, "repeated"),
        (FIELDS + FIELDS + TABLE + END, 422, "repeated"),
        (FIELDS + part("scans", b"") + END, 400, "empty"),
        (FIELDS + part("preset", b"\xff") + TABLE + END, 400, "UTF-8"),
        (FIELDS + part("preset", b"x" * 20_000) + TABLE + END, 400, "16384"),
        (FIELDS + part("floors", b"F1") * 64 + TABLE + END, 413, "64 parts"),
        (FIELDS + part("scans", b"AAAA", "Content-Transfer-Encoding: base64\r\n") + END, 400, "bytes"),
        (FIELDS + part("sca\0ns", b"") + TABLE + END, 422, "unknown"),
        (FIELDS + part("", b"") + TABLE + END, 400, "name"),
    ],
)
def test_case_51_forms_that_are_none_are_refused(
    house: RunningServer, body: bytes, status: int, words: str
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    assert_refused(house.http.post(BUILDINGS, content=body, headers=headers), status, words)


def test_case_84_what_stands_before_and_after_a_form_means_nothing(house: RunningServer) -> None:
    headers = {"Content-Type": FORM}
    for body in (b"hello\r\n" + FIELDS + TABLE + END, FIELDS + TABLE + END + b"more"):
        assert house.http.post(BUILDINGS, content=body, headers=headers).status_code == 202


@pytest.mark.parametrize("body", [b"null", b"5", b'"scans"', LONG, b"\xef\xbb\xbf{}", b"{", b"{} {}"])
def test_case_51_what_says_that_it_is_json_is_read_as_nothing_else(house: RunningServer, body: bytes) -> None:
    reply = house.http.post(BUILDINGS, content=body, headers={"Content-Type": "application/json"})
    assert_refused(reply, 400, "JSON")


def test_case_51_queries_of_too_many_fields_are_refused(house: RunningServer) -> None:
    many = "&".join(["a=1"] * 100)
    assert_refused(house.http.get(f"/v1/jobs?{many}"), 422, "16 fields")
    for path, kind in ((BUILDINGS, "text/csv"), ("/v1/classify", "image/png"), ("/v1/raw/develop", "")):
        headers = {"Content-Type": kind or "application/octet-stream"}
        reply = house.http.post(f"{path}?{many}", content=LONG, headers=headers)
        assert_refused(reply, 422, "fields")


def test_case_51_unknown_fields_of_a_query_are_refused_not_overlooked(house: RunningServer) -> None:
    query = 'building=quick_x&labelled={"scan":"a","floor":1}&flors=3'
    headers = {"Content-Type": "text/csv"}
    reply = house.http.post(
        f"{BUILDINGS}?{query}", content=b"scan,bssid,rssi\na,x,-50\nb,y,-60\n", headers=headers
    )
    assert_refused(reply, 422, "'flors'", "floors")
    assert reply.json()["error"]["code"] == "UNKNOWN_FIELD"


def posted(house: RunningServer, query: str, kind: str, content: bytes) -> httpx.Response:
    return house.http.post(f"{BUILDINGS}?{query}", content=content, headers={"Content-Type": kind})


FORM = "multipart/form-data; boundary=X"
LIST = b'[{"id": "a", "rssi": {"m1": -40}}, {"id": "b", "rssi": {"m2": -50}}]'
OBJECT = b'{"building": "quick_x", "scans": %s, "labelled": {"scan": "a", "floor": "B1"}}' % LIST


@pytest.mark.parametrize(
    ("kind", "content"), [("application/json", OBJECT), (FORM, FIELDS + TABLE + END)], ids=["json", "form"]
)
def test_case_51_fields_of_the_query_beside_json_and_forms_are_not_overlooked(
    house: RunningServer, kind: str, content: bytes
) -> None:
    reply = posted(house, "flors=3", kind, content)
    assert_refused(reply, 422, "'flors'", "floors")
    assert reply.json()["error"]["code"] == "UNKNOWN_FIELD"
    assert_refused(posted(house, "floors=99", kind, content), 400, "floors")
    assert_refused(posted(house, "seed=1&seed=2", kind, content), 422, "'seed' is repeated")
    reply = posted(house, "seed=7&floors=B1&floors=F1&building=quick_y", kind, content)
    assert reply.status_code == 202, reply.text
    assert reply.json()["job"]["subject"] == "quick_x"  # the body goes before the query
    wait_for(house, reply.json()["job"]["id"], "succeeded")


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("building=../x", 400, "building"),
        ("flors=3", 422, "flors"),
        ("building=x&building=y", 422, "repeated"),
        ("webhook=http://elsewhere.example/", 400, "webhook"),
    ],
)
@pytest.mark.parametrize("kind", ["text/csv", "application/json", FORM])
def test_case_51_what_the_query_says_is_judged_before_the_body_arrives(
    house: RunningServer, kind: str, query: str, status: int, words: str
) -> None:
    with Wire(house.http_port) as wire:
        head = f"POST {BUILDINGS}?{query} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\n"
        wire.send(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        reply = wire.reply()
    assert reply.status == status
    assert words in reply.body.decode()


def test_case_51_an_unknown_building_is_not_found_before_its_scans_arrive(house: RunningServer) -> None:
    with Wire(house.http_port) as wire:
        head = f"POST {BUILDINGS}/nowhere/identify HTTP/1.1\r\nHost: test\r\nContent-Type: application/json"
        wire.send(f"{head}\r\nContent-Length: 1000000\r\n\r\n".encode())
        assert wire.reply().status == 404


@pytest.mark.parametrize(
    ("field", "words"),
    [(part("building", b"../x"), "building"), (part("webhook", b"http://elsewhere.example/"), "webhook")],
)
def test_case_51_what_a_form_says_is_judged_before_its_scans_are_read(
    house: RunningServer, field: bytes, words: str
) -> None:
    unreadable = part("scans", b"this is no table")
    reply = posted(house, "", FORM, field + unreadable + END)
    assert_refused(reply, 400, words)
