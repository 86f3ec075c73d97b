"""`POST /v1/adapt/{model}` before there is a job: files of rows in every form, what is wrong with them."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nonet.runtime.errors import Conflict, InvalidArgument, PayloadTooLarge
from nonet.services.adaptation.adapt import check_sites
from nonet.services.adaptation.columns import Columns
from nonet.services.adaptation.names import MOST_SITES
from nonet.services.adaptation.table import RowLimits
from nonet.services.adaptation.upload import read_upload
from tests.support import handmade_regressors as handmade
from tests.support.adapting_gateway import adapting_settings
from tests.support.building_gateway import wait_for
from tests.support.running_server import RunningServer, assert_refused, running

ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)
HEADER = b"area,age,noise\n"


def npy(array: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **more)
    return out.getvalue()


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS.tolist()).encode()
OBJECTS = "".join(
    json.dumps({"noise": c, "age": b, "area": a, "other": 1}) + "\n" for a, b, c in ROWS.tolist()
).encode()
DOCUMENT = json.dumps({"inputs": ROWS.tolist()}, indent=1).encode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("uploads")
    models = folder / "models"
    handmade.publish_linear(models, "prices", companions=True)
    handmade.publish_linear(models, "fixed")
    handmade.publish_image_regressor(models, "levels")
    with running(models, folder / "server", adapting_settings()) as started:
        yield started


def ended(gateway: RunningServer, reply: Any) -> dict[str, Any]:
    """The job of a submit, when it has succeeded."""
    assert reply.status_code == 202, reply.text
    return wait_for(gateway, reply.json()["job"]["id"], "succeeded")


def send(gateway: RunningServer, content: bytes, model: str = "prices", **fields: str) -> Any:
    return gateway.http.post(f"/v1/adapt/{model}", files={"inputs": ("rows", content)}, data=fields)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(handmade.table(ROWS), "CSV"), (npz(inputs=ROWS, other=np.zeros(3)), "npz")],
)
def test_the_rows_are_the_input_of_a_job(gateway: RunningServer, content: bytes, kind: str) -> None:
    reply = send(gateway, content, seed="13")
    job = ended(gateway, reply)
    assert (job["kind"], job["subject"]) == ("adaptation.adapt", "prices")
    assert reply.headers["Location"] == f"/v1/jobs/{job['id']}"
    found = job["result"]
    assert (found["read_as"], found["rows"], found["sum"]) == (kind, 10, float(ROWS.sum()))


@pytest.mark.parametrize(
    ("content", "kind", "ignored"),
    [
        (handmade.table(ROWS), "CSV", ()),
        (handmade.table(ROWS).split(b"\n", 1)[1], "CSV", ()),
        (b"\xef\xbb\xbfid,noise,age,area\n7,2,1,0\n", "CSV", ("id",)),
        (LINES, "JSON lines", ()),
        (OBJECTS, "JSON lines", ()),
        (DOCUMENT, "JSON", ()),
        (json.dumps(ROWS.tolist()).encode(), "JSON", ()),
        (npy(ROWS), "npy", ()),
        (npy(np.asfortranarray(ROWS.astype(np.int64))), "npy", ()),
        (npz(inputs=ROWS, other=np.zeros(3)), "npz", ()),
    ],
)
def test_rows_come_in_every_form(tmp_path: Path, content: bytes, kind: str, ignored: tuple[str, ...]) -> None:
    (tmp_path / "sent").write_bytes(content)
    columns = Columns((3,), handmade.FEATURES)
    read = read_upload(tmp_path / "sent", tmp_path / "rows", columns)
    assert (read.kind, read.ignored) == (kind, ignored)
    rows = np.fromfile(tmp_path / "rows", "<f4").reshape(-1, 3)
    assert read.rows == len(rows)
    assert np.array_equal(rows, ROWS[: len(rows)])


def test_a_long_file_is_read_in_a_process_of_its_own(tmp_path: Path) -> None:
    long = np.tile(ROWS, (3000, 1))
    (tmp_path / "sent").write_bytes(handmade.table(long))
    columns = Columns((3,), handmade.FEATURES)
    read = read_upload(tmp_path / "sent", tmp_path / "rows", columns)
    assert (read.rows, read.kind) == (30_000, "CSV")
    assert np.array_equal(np.fromfile(tmp_path / "rows", "<f4").reshape(-1, 3), long)
    (tmp_path / "sent").write_bytes(handmade.table(long) + b"1,2,x\n")
    with pytest.raises(InvalidArgument, match="row 30000, column 'noise' must be a number, got 'x'"):
        read_upload(tmp_path / "sent", tmp_path / "more", columns)
    with pytest.raises(PayloadTooLarge, match="more than 1000 rows"):
        read_upload(tmp_path / "sent", tmp_path / "most", columns, RowLimits(rows=1000))


def test_windows_are_lines_of_channels(tmp_path: Path) -> None:
    window = [[1.0, 2.0], [3.0, 4.0]]
    columns = Columns((2, 2), ("left", "right"))
    for number, content in enumerate(
        (json.dumps(window), json.dumps({"inputs": [window]}), json.dumps([window]), "1,2,3,4")
    ):
        (tmp_path / "sent").write_text(content + "\n")
        read_upload(tmp_path / "sent", tmp_path / str(number), columns)
        assert np.fromfile(tmp_path / str(number), "<f4").tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_model_has_so_many_sites(tmp_path: Path) -> None:
    for site in range(MOST_SITES):
        (tmp_path / f"prices@s{site}" / "1").mkdir(parents=True)
    check_sites(tmp_path, "prices@s0")
    check_sites(tmp_path, "other@new")
    with pytest.raises(Conflict, match="64 sites") as refused:
        check_sites(tmp_path, "prices@new")
    assert refused.value.code == "TOO_MANY_SITES"


def test_a_json_body_holds_the_fields_too_and_the_query_counts_where_it_does_not(
    gateway: RunningServer,
) -> None:
    body = {"inputs": ROWS.tolist(), "site": "coast"}
    reply = gateway.http.post("/v1/adapt/prices?site=hills&activate=false", json=body)
    job = ended(gateway, reply)
    assert (job["subject"], job["result"]["version"]) == ("prices@coast", "")
    alone = gateway.http.post(
        "/v1/adapt/prices?site=hills&seed=13",
        content=LINES,
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert ended(gateway, alone)["subject"] == "prices@hills"


def test_a_submit_that_is_repeated_is_one_job(gateway: RunningServer) -> None:
    headers = {"Idempotency-Key": "once"}

    def again(content: bytes) -> Any:
        files = {"inputs": ("r", content)}
        return gateway.http.post("/v1/adapt/prices", files=files, data={"seed": "13"}, headers=headers)

    first, second = again(npy(ROWS)), again(npy(ROWS))
    assert first.json()["job"]["id"] == second.json()["job"]["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert_refused(again(npy(ROWS + 1)), 409, "key")


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (HEADER + b"1,2,3\n4,5,x\n", 400, "row 1, column 'noise' must be a number, got 'x'"),
        (HEADER + b"1,2,3\n4,,6\n", 400, "row 1, column 'age' is empty"),
        (HEADER + b"1,2,3\n4,nan,6\n", 400, "row 1, column 'age' must be a finite 32-bit number"),
        (HEADER + b"1,2,3\n4,inf,6\n", 400, "row 1, column 'age' must be a finite 32-bit number"),
        (HEADER + b"1,2,3\n4,5\n", 400, "row 1 has 2 cells, not 3"),
        (b"area,age\n1,2\n", 400, "the table has no column 'noise'"),
        (b"area,age,noise,age\n1,2,3,4\n", 400, "more than one column 'age'"),
        (HEADER, 400, "no rows"),
        (b"1,2\n", 400, "row 0 has 2 cells, not 3"),
        (b'[1,2,3]\n[1,"2",3]\n', 400, "row 1, column 'age' must be a number, got '2'"),
        (b'{"area":1,"age":2,"noise":3}\n{"area":1}\n', 400, "row 1, column 'age' is missing"),
        (b"[1,2,3]\n[1,2\n", 400, "row 1 is not valid JSON"),
        (b"[1,2,3]\n[1,2,NaN]\n", 400, "row 1 is not valid JSON"),
        (b'{"inputs": [[1,2,3]], "sight": "a"}', 422, "unknown field 'sight'"),
        (b'{"rows": [[1,2,3]]}', 400, "row 0, column 'area' is missing"),
        (b'{"inputs": [[1,2,3]', 400, "not valid JSON"),
        (b'{"inputs": 3}', 400, "must be a list of rows"),
        (npy(np.zeros((3, 4), np.float32)), 400, "shape [3, 4], the model takes [rows, 3]"),
        (npy(np.full((3, 3), np.nan)), 400, "row 0, column 'area' must be a finite"),
        (npy(np.full((3, 3), 1e300)), 400, "row 0, column 'area' must be a finite"),
        (npy(np.array([["a", "b", "c"]])), 400, "send numbers"),
        (npy(np.array([[{}, 1, 2]], dtype=object), allow_pickle=True), 400, "never loaded"),
        (npz(a=ROWS, b=ROWS), 400, "call the one with the rows 'inputs'"),
        (npy(ROWS)[:100], 400, "damaged"),
        (b"PK\x03\x04 no archive", 400, "damaged"),
        (b"\x7fELF\x01\x02\x00\x00", 415, "none of them"),
        (b"<html></html>", 415, "none of them"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    gateway: RunningServer, content: bytes, status: int, says: str
) -> None:
    assert_refused(send(gateway, content), status, says)


def test_names_of_sites_and_fields_are_checked(gateway: RunningServer) -> None:
    good = npy(ROWS)
    assert_refused(send(gateway, good, site="a b"), 400, "field 'site'")
    assert_refused(send(gateway, good, site="../x"), 400, "field 'site'")
    assert_refused(send(gateway, good, epochs="0"), 400, "field 'epochs'")
    assert_refused(send(gateway, good, activate="perhaps"), 422, "field 'activate'")
    assert_refused(send(gateway, good, method="magic"), 400, "field 'method'")
    assert_refused(send(gateway, good, model="nowhere"), 404, "unknown model 'nowhere'")


def test_what_cannot_be_adapted_says_why(gateway: RunningServer) -> None:
    fixed = send(gateway, npy(ROWS), model="fixed")
    assert_refused(fixed, 409, "cannot be adapted", "network.json")
    assert fixed.json()["error"]["code"] == "NOT_ADAPTABLE"
    assert_refused(send(gateway, npy(ROWS), model="levels"), 409, "cannot be adapted")


def test_a_gigabyte_is_refused_before_it_is_read(gateway: RunningServer) -> None:
    before = gateway.most_memory()
    piece = b"1,2,3\n" * 174_762 + b"1,2\n"
    headers = {"Content-Type": "text/csv", "Content-Length": str(1 << 30)}
    content = itertools.repeat(piece, 1 << 10)
    assert_refused(gateway.http.post("/v1/adapt/prices", content=content, headers=headers), 413, "larger")
    assert gateway.most_memory() - before < 64 << 20
