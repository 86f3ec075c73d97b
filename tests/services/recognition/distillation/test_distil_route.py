"""`POST /v1/distil` on a real gateway with real workers: a student joins its teacher's family and answers."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from PIL import Image

from nonet.runtime.oip.messages import methods
from tests.support.colour_classifier import TEACHER, archive, publish_teacher
from tests.support.running_server import RunningServer, assert_refused, eventually, running

pytestmark = pytest.mark.timeout(300)

ROUTE = "/v1/distil"
METHODS = {method.name: method for method in methods("nonet.v1.Recognition")}
SHORT = {"minutes": "0.15", "least_agreement": "0"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("distil")
    publish_teacher(folder / "models")
    settings = {"jobs": {"nice": 0}, "scheduler": {"lanes": 1}, "repository": {"poll_seconds": 0.0}}
    with running(folder / "models", folder / "server", settings) as started:
        yield started


def send(gateway: RunningServer, pictures: bytes, **fields: str) -> Any:
    return gateway.http.post(ROUTE, files={"pictures": ("pictures.zip", pictures)}, data=fields)


def ended(gateway: RunningServer, job: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(gateway.http.get(f"/v1/jobs/{job}").json())
        return found["state"] in ("succeeded", "failed", "cancelled")

    eventually(has_ended, "the job ends", guard=120)
    return found


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(out, "PNG")
    return out.getvalue()


def test_a_student_is_made_measured_and_served(gateway: RunningServer) -> None:
    sent = send(gateway, archive(120), model="colours", **SHORT)
    assert sent.status_code == 202, sent.text
    job = ended(gateway, sent.json()["job"]["id"])
    assert job["state"] == "succeeded", job
    result = job["result"]
    assert (result["model"], result["version"]) == (f"{TEACHER}_nano", "1")
    assert result["quality"]["pictures"] == 12
    assert result["quality"]["agreement"] > result["quality"]["agreement_of_commonest"]
    assert result["quality"]["teacher_top1"] == 1.0
    card = next(each for each in gateway.http.get("/v1/models").json()["data"] if each["id"] == "colours")
    assert set(card["variants"]) == {TEACHER, f"{TEACHER}_nano"}
    answer = gateway.http.post(
        "/v1/classify", files={"image": picture("red")}, data={"model": f"{TEACHER}_nano"}
    ).json()
    assert {each["label"] for each in answer["predictions"]} == {"red", "green", "blue"}


def test_pictures_without_labels_teach_and_only_the_agreement_is_said(gateway: RunningServer) -> None:
    shown = io.BytesIO(archive(120, labelled=False))
    packed = io.BytesIO()
    with zipfile.ZipFile(shown) as source, tarfile.open(fileobj=packed, mode="w:gz") as target:
        for name in source.namelist():
            member = tarfile.TarInfo(name)
            content = source.read(name)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    sent = gateway.http.post(
        f"{ROUTE}?name=site_student&minutes=0.15&least_agreement=0",
        content=packed.getvalue(),
        headers={"Content-Type": "application/gzip"},
    )
    assert sent.status_code == 202, sent.text
    job = ended(gateway, sent.json()["job"]["id"])
    assert job["state"] == "succeeded", job
    assert job["result"]["model"] == "site_student"
    assert "top1" not in job["result"]["quality"]
    assert any("no labels" in note for note in job["result"]["notes"])


def test_over_grpc_an_archive_comes_in_pieces(gateway: RunningServer) -> None:
    method = METHODS["Distil"]
    request = method.request
    content = archive(60)
    pieces = [
        request(model=TEACHER, student="t0", minutes=0.05, pictures=content[:1000]),
        request(pictures=content[1000:]),
    ]
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        submit = channel.stream_unary(
            method.path,
            request_serializer=request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        job = submit(iter(pieces), timeout=60).job
    assert job.subject == f"{TEACHER}_t0"
    gateway.http.delete(f"/v1/jobs/{job.id}")
    ended(gateway, job.id)


@pytest.mark.parametrize(
    ("pictures", "fields", "status", "param"),
    [
        (b"no archive", {}, 415, "pictures"),
        (archive(60)[:-100], {}, 415, "pictures"),
        (archive(30), {}, 400, "pictures"),
        (archive(60), {"student": "resnet"}, 400, "student"),
        (archive(60), {"minutes": "nan"}, 400, "minutes"),
        (archive(60), {"minutes": "0"}, 400, "minutes"),
        (archive(60), {"model": "nothing"}, 404, "model"),
        (archive(60), {"name": "../up"}, 400, "name"),
        (archive(60), {"name": TEACHER}, 409, "name"),
        (archive(60), {"schedule": "later"}, 400, "schedule"),
        (archive(60), {"extra": "1"}, 422, "extra"),
    ],
)
def test_what_cannot_become_a_job_is_refused_at_once(
    gateway: RunningServer, pictures: bytes, fields: dict[str, str], status: int, param: str
) -> None:
    reply = send(gateway, pictures, **fields)
    assert_refused(reply, status)
    assert reply.json()["error"]["param"] == param


def test_pictures_that_are_none_fail_the_job_in_words(gateway: RunningServer) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        for index in range(50):
            target.writestr(f"{index}.jpg", b"not a picture")
    sent = send(gateway, packed.getvalue(), **SHORT)
    assert sent.status_code == 202
    job = ended(gateway, sent.json()["job"]["id"])
    assert job["state"] == "failed"
    assert "50 files could not be read" in job["error"]["message"]


def test_a_student_that_learnt_too_little_is_not_published(gateway: RunningServer) -> None:
    """Nothing can be learnt of noise in three seconds that is right every time."""
    fields = {"name": "hasty", "minutes": "0.05", "schedule": "end_to_end", "least_agreement": "1"}
    sent = send(gateway, archive(60, noise=True), **fields)
    assert sent.status_code == 202, sent.text
    job = ended(gateway, sent.json()["job"]["id"])
    assert job["state"] == "failed", job
    assert job["error"]["code"] == "LEARNT_TOO_LITTLE"
    assert "were wanted" in job["error"]["message"]
    assert "hasty" not in {each["id"] for each in gateway.http.get("/v1/models").json()["data"]}
