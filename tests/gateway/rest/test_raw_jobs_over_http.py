"""``Prefer: respond-async`` on ``/v1/raw/develop``: a job, its picture, and what is refused at the submit."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support import handmade_captures
from tests.support.building_gateway import wait_for
from tests.support.capture_gateway import (
    ASYNC,
    CAPTURE,
    DEVELOP,
    QUICK,
    SLOW,
    developed,
    fill_repository,
    result_of,
    settings,
    submit,
    submitted,
)
from tests.support.running_server import RunningServer, assert_refused, running

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("jobs_darkroom") / "models"
    root.mkdir()
    fill_repository(root)
    given = settings(max_upload_bytes=4 << 20)
    given["server"] = {"max_body_bytes": 1 << 20, "max_decoded_bytes": 1 << 20}
    with running(root, tmp_path_factory.mktemp("jobs_darkroom_server"), given) as started:
        yield started


def picture(server: RunningServer, job: str) -> bytes:
    wait_for(server, job, "succeeded")
    reply = result_of(server, job)
    assert reply.status_code == 200, reply.text
    return reply.content


def test_a_capture_becomes_a_job_and_the_job_a_picture(darkroom: RunningServer) -> None:
    reply = submit(darkroom, output="png16")
    assert reply.status_code == 202, reply.text
    job = reply.json()["job"]
    assert reply.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert reply.headers["Preference-Applied"] == "respond-async"
    assert (job["kind"], job["subject"]) == ("raw.develop", "capture.npy")
    result = wait_for(darkroom, job["id"], "succeeded")["result"]
    fetched = darkroom.http.get(result["file"])
    awaited = developed(darkroom, output="png16")
    assert fetched.status_code == 200
    assert fetched.content == awaited.content
    assert (result["model"], result["version"]) == (QUICK, "1")
    assert (result["width"], result["height"], result["bytes"]) == (60, 44, len(fetched.content))
    for header in ("content-type", "content-length", "x-model-version", "x-noise-sigma"):
        assert fetched.headers.get(header) == awaited.headers.get(header)
    assert fetched.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "how",
    [
        {"output": "jpeg", "render": "srgb", "white_balance": "2,1,1.5"},
        {"output": "tiff16", "uncertainty": "true"},
        {"output": "png", "noise": "3"},
    ],
)
def test_the_headers_of_the_picture_are_those_of_the_route(darkroom: RunningServer, how: Any) -> None:
    job = submitted(darkroom, **how)
    awaited = developed(darkroom, **how)
    assert picture(darkroom, job) == awaited.content
    fetched = result_of(darkroom, job)
    for header in ("content-type", "x-white-balance", "x-std-scale"):
        assert fetched.headers.get(header) == awaited.headers.get(header)


def test_every_way_to_send_a_capture_gives_the_same_picture(darkroom: RunningServer) -> None:
    text = base64.b64encode(CAPTURE).decode()
    how = {"cfa": "RGGB", "noise": 2.5, "model": QUICK}
    texts = {name: str(value) for name, value in how.items()}
    octets = ASYNC | {"content-type": "application/octet-stream"}
    post = darkroom.http.post
    replies = [
        submit(darkroom, noise="2.5"),
        post(DEVELOP, json={"raw": text, **how}, headers=ASYNC),
        post(DEVELOP, content=CAPTURE, params=texts, headers=octets),
        post(
            DEVELOP,
            content=gzip.compress(CAPTURE),
            params=texts,
            headers=octets | {"content-encoding": "gzip"},
        ),
        post(
            DEVELOP,
            files={"raw": (None, text), **{k: (None, v) for k, v in texts.items()}},
            headers=ASYNC,
        ),
    ]
    assert [reply.status_code for reply in replies] == [202] * 5, [reply.text[:300] for reply in replies]
    pictures = {picture(darkroom, reply.json()["job"]["id"]) for reply in replies}
    assert pictures == {developed(darkroom, noise="2.5").content}


@pytest.mark.parametrize(
    ("preference", "followed"),
    [
        ("respond-async", True),
        ("Respond-Async", True),
        ("respond-async, wait=100", True),
        ('return=minimal; foo="a, b", respond-async;x=y', True),
        ('respond-async=""', True),
        ("wait=5", False),
        ("respond-asynchronously", False),
        ('foo="respond-async"', False),
        ('foo="a,respond-async,b"', False),
        ("respond-async=no", False),
        ("", False),
        (",;=,", False),
    ],
)
def test_only_the_known_preference_is_followed(
    darkroom: RunningServer, preference: str, followed: bool
) -> None:
    data = {"cfa": "RGGB", "model": QUICK}
    reply = darkroom.http.post(DEVELOP, files={"raw": CAPTURE}, data=data, headers={"Prefer": preference})
    assert reply.status_code == (202 if followed else 200), reply.text
    assert ("Preference-Applied" in reply.headers) == followed
    assert ("X-Cache" in reply.headers) != followed


@pytest.mark.parametrize(
    ("raw", "fields", "status", "param"),
    [
        (CAPTURE, {"output": "gif"}, 400, "output"),
        (CAPTURE, {"noise": "loud"}, 400, "noise"),
        (CAPTURE, {"cfa": "XYZW"}, 400, "cfa"),
        (CAPTURE, {"black_level": "70000"}, 400, "white_level"),
        (CAPTURE, {"white_balance": "auto"}, 400, "white_balance"),
        (CAPTURE, {"model": "nobody"}, 404, "model"),
        (CAPTURE, {"model": ""}, 400, "model"),
        (CAPTURE, {"colour": "red"}, 422, "colour"),
        (CAPTURE, {"camera_matrix": "x" * 100_000}, 422, "camera_matrix"),
        (b"", {}, 400, "raw"),
        (b"rubbish", {}, 415, "raw"),
        (b"\xff\xd8\xff\xe0" + b"0" * 99, {}, 415, "raw"),
        (CAPTURE[:-5], {}, 400, "raw"),
        (handmade_captures.image_file(np.zeros((4, 4), np.uint8)), {}, 400, "raw"),
        (handmade_captures.dng(handmade_captures.capture())[:-99], {}, 400, "raw"),
    ],
)
def test_what_the_route_refuses_is_refused_at_the_submit_in_its_words(
    darkroom: RunningServer, raw: bytes, fields: dict[str, str], status: int, param: str
) -> None:
    before = len(darkroom.http.get("/v1/jobs?limit=100").json()["data"])
    reply = submit(darkroom, raw, **fields)
    assert_refused(reply, status)
    assert reply.json()["error"]["param"] == param
    given = {"cfa": "RGGB", "model": QUICK, **fields}
    awaited = darkroom.http.post(DEVELOP, files={"raw": ("capture.npy", raw)}, data=given)
    assert awaited.status_code == status
    if param != "colour":  # here there is one field more to be named
        assert awaited.json() == reply.json()
    assert len(darkroom.http.get("/v1/jobs?limit=100").json()["data"]) == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"raw": 5},
        {"raw": "!"},
        {"raw": "http://127.0.0.1/x"},
        {"raw": ""},
        [],
        {"raw": "AAAA", "cfa": {}},
    ],
)
def test_a_json_body_of_the_wrong_form_is_refused_as_by_the_route(darkroom: RunningServer, body: Any) -> None:
    reply = darkroom.http.post(DEVELOP, json=body, headers=ASYNC)
    awaited = darkroom.http.post(DEVELOP, json=body)
    assert reply.status_code == awaited.status_code
    assert reply.json()["error"]["code"] == awaited.json()["error"]["code"]


def test_malformed_forms_are_refused(darkroom: RunningServer) -> None:
    kind = ASYNC | {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x", b"rubbish", b"--x\r\n\r\n--x--"):
        assert_refused(darkroom.http.post(DEVELOP, content=body, headers=kind), 400)
    for files in ({"cfa": (None, "RGGB")}, [("raw", CAPTURE), ("raw", CAPTURE)]):
        assert_refused(darkroom.http.post(DEVELOP, files=files, headers=ASYNC), 422, "raw")
    text = ASYNC | {"content-type": "text/plain"}
    assert_refused(darkroom.http.post(DEVELOP, content=b"x", headers=text), 415)
    repeated = darkroom.http.post(DEVELOP, files=[("raw", CAPTURE), ("cfa", b"RGGB"), ("cfa", b"RGGB")])
    assert_refused(repeated, 422, "cfa")


def test_what_only_decoding_shows_fails_the_job_as_it_fails_the_route(darkroom: RunningServer) -> None:
    pytest.importorskip("rawpy")
    x_trans = {33421: (3, [6, 6]), 33422: (1, [0, 1, 2] * 12)}
    files = [
        handmade_captures.npy(np.full((40, 40), np.nan, np.float32)),
        handmade_captures.dng(handmade_captures.capture(), tags=x_trans),
        handmade_captures.dng(
            handmade_captures.capture(), tags={33421: None, 33422: None, 262: (3, [34892])}
        ),
    ]
    for raw in files:
        fields = {} if raw.startswith(b"II") else {"cfa": "RGGB"}
        data = {"model": QUICK, **fields}
        awaited = darkroom.http.post(DEVELOP, files={"raw": raw}, data=data)
        assert awaited.status_code in (400, 415), awaited.text
        reply = darkroom.http.post(DEVELOP, files={"raw": raw}, data=data, headers=ASYNC)
        assert reply.status_code == 202, reply.text
        failed = wait_for(darkroom, reply.json()["job"]["id"], "failed")
        assert failed["error"] == awaited.json()["error"]
        refused = result_of(darkroom, failed["id"])
        assert_refused(refused, 409, "failed")
        assert refused.json()["error"]["code"] == "JOB_NOT_SUCCEEDED"


def test_a_job_may_be_larger_than_a_request(darkroom: RunningServer) -> None:
    """The upload of a job goes to the disk; that of a request has to fit into memory."""
    raw = handmade_captures.npy(handmade_captures.capture(800, 1000))
    data = {"cfa": "RGGB", "model": QUICK}
    assert_refused(darkroom.http.post(DEVELOP, files={"raw": raw}, data=data), 413, "1048576")
    chunked = {"content-type": "application/octet-stream"}
    halves = (raw[start : start + 300_000] for start in range(0, len(raw), 300_000))
    assert_refused(darkroom.http.post(DEVELOP, content=halves, params=data, headers=chunked), 413)
    ended = wait_for(darkroom, submitted(darkroom, raw), "succeeded")
    assert ended["result"]["width"] == 1000
    pieces = (raw[start : start + 300_000] for start in range(0, len(raw), 300_000))
    reply = darkroom.http.post(DEVELOP, content=pieces, params=data, headers=ASYNC | chunked)
    assert reply.status_code == 202, reply.text
    huge = handmade_captures.npy(np.zeros((1500, 1500), np.uint16))
    assert_refused(submit(darkroom, huge), 413, "4194304")
    # JSON has to be read whole, so it is as small as ever.
    text = base64.b64encode(raw).decode()
    assert_refused(darkroom.http.post(DEVELOP, json={"raw": text, **data}, headers=ASYNC), 413, "1048576")


def test_preferences_may_stand_in_several_fields(darkroom: RunningServer) -> None:
    fields = [("Prefer", "respond-async"), ("Prefer", "wait=10")]
    data = {"cfa": "RGGB", "model": QUICK}
    reply = darkroom.http.post(DEVELOP, files={"raw": CAPTURE}, data=data, headers=fields)
    assert reply.status_code == 202, reply.text


def test_equal_submits_under_one_key_are_one_job(darkroom: RunningServer) -> None:
    first, again = submit(darkroom, key="k1", noise="7"), submit(darkroom, key="k1", noise="7.0")
    assert first.json()["job"]["id"] == again.json()["job"]["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert_refused(submit(darkroom, key="k1", noise="8"), 409, "Idempotency-Key")
    assert_refused(
        submit(darkroom, handmade_captures.npy(handmade_captures.capture(seed=3)), key="k1", noise="7"), 409
    )
    assert_refused(submit(darkroom, key="a b"), 400, "Idempotency-Key")


def test_a_webhook_is_refused_where_none_is_allowed(darkroom: RunningServer) -> None:
    assert_refused(submit(darkroom, webhook="http://127.0.0.1:9/x"), 400, "webhook")
    # Who waits for the answer needs none: there the field does not exist.
    reply = darkroom.http.post(DEVELOP, files={"raw": CAPTURE}, data={"webhook": "http://127.0.0.1:9/x"})
    assert_refused(reply, 422, "webhook")


def test_a_deadline_is_one_for_the_submit(darkroom: RunningServer) -> None:
    headers = ASYNC | {"X-Request-Timeout-Ms": "60000"}
    data = {"cfa": "RGGB", "model": QUICK}
    reply = darkroom.http.post(DEVELOP, files={"raw": CAPTURE}, data=data, headers=headers)
    assert reply.status_code == 202
    late = darkroom.http.post(
        DEVELOP, files={"raw": CAPTURE}, data=data, headers=ASYNC | {"X-Request-Timeout-Ms": "0"}
    )
    assert_refused(late, 504)
    wrong = ASYNC | {"X-Request-Timeout-Ms": "soon"}
    assert_refused(darkroom.http.post(DEVELOP, files={"raw": CAPTURE}, data=data, headers=wrong), 400)


def test_a_result_is_there_when_the_job_has_succeeded(darkroom: RunningServer) -> None:
    job = submitted(darkroom, handmade_captures.npy(handmade_captures.capture(140, 280)), model=SLOW)
    early = result_of(darkroom, job)
    assert_refused(early, 409)
    assert early.json()["error"]["code"] == "JOB_NOT_ENDED"
    darkroom.http.delete(f"/v1/jobs/{job}")
    wait_for(darkroom, job, "cancelled")
    assert_refused(result_of(darkroom, job), 409, "cancelled")
    for unknown in ("job_1", "..%2F..%2Fetc", "%00"):
        assert_refused(result_of(darkroom, unknown), 404)
    reply = darkroom.http.post(f"/v1/jobs/{job}/result")
    assert reply.status_code == 405
    assert reply.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_description_knows_both_answers(darkroom: RunningServer) -> None:
    paths = darkroom.http.get("/openapi.json").json()["paths"]
    operation = paths[DEVELOP]["post"]
    assert {"200", "202", "409"} <= operation["responses"].keys()
    assert {"Prefer", "Idempotency-Key"} <= {each["name"] for each in operation["parameters"]}
    assert "200" in paths["/v1/jobs/{job}/result"]["get"]["responses"]


def test_a_client_that_reads_slowly_gets_all_of_it(darkroom: RunningServer) -> None:
    job = submitted(darkroom, handmade_captures.npy(handmade_captures.capture(800, 1000)), output="tiff16")
    wait_for(darkroom, job, "succeeded")
    with darkroom.http.stream("GET", f"/v1/jobs/{job}/result") as reply:
        size = sum(len(piece) for piece in reply.iter_bytes(1000))
    assert size == int(reply.headers["content-length"])
    assert 0 < size - 800 * 1000 * 6 < 10_000
    with darkroom.http.stream("GET", f"/v1/jobs/{job}/result") as reply:
        next(reply.iter_raw(1000))  # and is gone
    assert isinstance(result_of(darkroom, job), httpx.Response)
