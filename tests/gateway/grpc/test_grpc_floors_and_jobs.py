"""``nonet.v1.FloorIdentification`` and ``nonet.v1.Jobs`` answer as the REST routes do, and refuse alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nonet.runtime.oip.messages import JOBS, message, methods
from tests.support.building_gateway import (
    BUILDINGS,
    events,
    job_of,
    toy_settings,
    under_way,
    upload,
    wait_for,
)
from tests.support.running_server import RunningServer, eventually
from tests.support.webhook_receiver import Receiver

METHODS = {method.name: method for name in ("nonet.v1.FloorIdentification", JOBS) for method in methods(name)}
HOME = {"00:00:00:00:00:01": -40.0, "00:00:00:00:00:02": -60.0}


class Client:
    """Calls by method name with the fields of the request."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def __call__(self, name: str, metadata: Any = None, **fields: Any) -> Any:
        method = METHODS[name]
        shape = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = shape(method.path, response_deserializer=method.response.FromString)
        return call(method.request(**fields).SerializeToString(), timeout=60, metadata=metadata)


@pytest.fixture
def served(
    start_server: Callable[..., RunningServer], own_repository: Path
) -> Iterator[tuple[RunningServer, Client]]:
    server = start_server(own_repository, toy_settings())
    client = Client(server.grpc_address)
    yield server, client
    client.channel.close()


def fit_fields(building: str, **fields: Any) -> dict[str, Any]:
    body = upload(building)
    scans = [message("nonet.v1.Scan")(id=scan["id"], rssi=scan["rssi"]) for scan in body["scans"]]
    return {
        "building": building,
        "scans": scans,
        "labelled_scan": "a",
        "labelled_floor": "B1",
        **fields,
    }


def test_a_building_from_fit_to_deletion(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    key = (("idempotency-key", "k1"),)
    reply = client("Fit", key, **fit_fields("quick_home"))
    assert (reply.job.kind, reply.job.subject, reply.replayed) == ("floors.fit", "quick_home", False)
    again = client("Fit", key, **fit_fields("quick_home"))
    assert (again.job.id, again.replayed) == (reply.job.id, True)
    # Both faces ask for the same: the same key is the same job there too.
    rest = server.http.post(BUILDINGS, json=upload("quick_home"), headers={"Idempotency-Key": "k1"})
    assert rest.json()["job"]["id"] == reply.job.id
    watched = list(client("WatchJob", id=reply.job.id))
    assert watched[-1].state == "succeeded"
    assert json.loads(watched[-1].result_json)["model"] == "floors_quick_home"
    revisions = [job.revision for job in watched]
    assert revisions == sorted(set(revisions))
    assert list(client("WatchJob", id=reply.job.id, after_revision=revisions[-1])) == []
    described = client("DescribeBuilding", building="quick_home")
    plain = server.http.get(f"{BUILDINGS}/quick_home").json()
    for name in ("building", "model", "version", "created"):
        assert getattr(described, name) == plain[name]
    assert (list(described.versions), list(described.floors)) == (plain["versions"], plain["floors"])
    assert (dict(described.quality), list(described.warnings)) == (plain["quality"], plain["warnings"])
    assert json.loads(described.facts_json) == plain["facts"]
    assert [each.building for each in client("ListBuildings").buildings] == ["quick_home"]
    scan = message("nonet.v1.Scan")
    answer = client("Identify", building="quick_home", scans=[scan(rssi=HOME), scan(rssi={"zz": -40})])
    body = {"scans": [{"rssi": HOME}, {"rssi": {"zz": -40}}]}
    rows = server.http.post(f"{BUILDINGS}/quick_home/identify", json=body).json()["floors"]
    for typed, row in zip(answer.floors, rows, strict=True):
        assert typed.floor == (row["floor"] or "")
        assert (typed.confidence, typed.known, typed.heard) == (row["confidence"], row["known"], row["heard"])
        assert dict(typed.distribution) == row["distribution"]
    client("DeleteBuilding", building="quick_home")
    assert server.http.get(BUILDINGS).json()["data"] == []


def test_the_end_of_a_job_is_told_to_a_webhook(
    start_server: Callable[..., RunningServer], own_repository: Path
) -> None:
    with Receiver() as receiver:
        hooks = {"webhook_hosts": [receiver.host], "webhook_secret": "a secret of the tests"}
        server = start_server(own_repository, toy_settings(**hooks))
        client = Client(server.grpc_address)
        key = (("idempotency-key", "k1"),)
        job = client("Fit", key, **fit_fields("quick_home", webhook=receiver.url)).job
        assert (job.webhook.state, job.webhook.attempts, job.webhook.last_error) == ("waiting", 0, "")
        # Both faces ask for the same; without the webhook it would be another request.
        same = server.http.post(
            BUILDINGS, json=upload("quick_home", webhook=receiver.url), headers={"Idempotency-Key": "k1"}
        )
        assert same.json()["job"]["id"] == job.id
        with pytest.raises(grpc.RpcError) as refused:
            client("Fit", key, **fit_fields("quick_home"))
        assert refused.value.code() is grpc.StatusCode.ABORTED
        eventually(lambda: client("GetJob", id=job.id).webhook.state == "delivered", "it was told", 90.0)
        (letter,) = receiver.letters
        assert letter.signed_with("a secret of the tests")
        assert (letter.job["id"], letter.job["state"]) == (job.id, "succeeded")
        with pytest.raises(grpc.RpcError) as refused:
            client("Fit", **fit_fields("quick_home", webhook="http://elsewhere.example/"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert not client("Fit", **fit_fields("quick_home")).job.HasField("webhook")
        client.channel.close()


def test_jobs_are_looked_at_listed_and_cancelled(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    job = client("Fit", **fit_fields("slow_home", file=b"", seed=3)).job.id
    under_way(server, job)
    typed, plain = client("GetJob", id=job), job_of(server, job)
    assert (typed.id, typed.kind, typed.subject) == (plain["id"], plain["kind"], plain["subject"])
    assert (typed.attempts, typed.created_at) == (1, pytest.approx(plain["created_at"], abs=0.01))
    assert [each.id for each in client("ListJobs", states=["running"]).jobs] == [job]
    assert client("CancelJob", id=job).cancelling
    wait_for(server, job, "cancelled")
    assert [name for name, _, _ in events(server, job)] == ["state"]
    assert client("GetJob", id=job).state == "cancelled"


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("Fit", fit_fields("quick_x", scans=[]), grpc.StatusCode.INVALID_ARGUMENT),
        ("Fit", fit_fields("quick_x", file=b"x"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Fit", fit_fields("../x"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Fit", fit_fields("quick_x", labelled_scan="nobody"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Fit", fit_fields("quick_x", floors=99), grpc.StatusCode.INVALID_ARGUMENT),
        ("DescribeBuilding", {"building": "nowhere"}, grpc.StatusCode.NOT_FOUND),
        ("DeleteBuilding", {"building": "nowhere"}, grpc.StatusCode.NOT_FOUND),
        ("Identify", {"building": "nowhere"}, grpc.StatusCode.INVALID_ARGUMENT),
        ("GetJob", {"id": "job_1"}, grpc.StatusCode.NOT_FOUND),
        ("GetJob", {"id": "../"}, grpc.StatusCode.NOT_FOUND),
        ("CancelJob", {"id": "job_1"}, grpc.StatusCode.NOT_FOUND),
        ("ListJobs", {"limit": 1000}, grpc.StatusCode.INVALID_ARGUMENT),
        ("ListJobs", {"states": ["asleep"]}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_refusals_have_the_status_of_their_kind(
    server: RunningServer, name: str, fields: dict[str, Any], status: grpc.StatusCode
) -> None:
    client = Client(server.grpc_address)
    with pytest.raises(grpc.RpcError) as refused:
        client(name, **fields)
    assert refused.value.code() is status, refused.value.details()
    client.channel.close()


def test_watching_what_is_not_there_is_not_found(server: RunningServer) -> None:
    client = Client(server.grpc_address)
    with pytest.raises(grpc.RpcError) as refused:
        list(client("WatchJob", id="job_1"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    client.channel.close()


def refusal_of(client: Client, name: str, raw: bytes) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refused:
        client.channel.unary_unary(METHODS[name].path)(raw, timeout=60)
    return refused.value


def test_millions_of_empty_scans_are_refused_before_they_take_memory(server: RunningServer) -> None:
    client = Client(server.grpc_address)
    request = METHODS["Identify"].request
    most = server.most_memory()
    empty = request(scans=[{}]).SerializeToString()
    named = request(building="quick_home").SerializeToString()
    for count, word in ((10_000_000, "bytes"), (1_000_000, "131072")):
        refused = refusal_of(client, "Identify", named + empty * count)
        assert (refused.code(), word in refused.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    refused = refusal_of(client, "Identify", named + empty * 2000)
    assert (refused.code(), "1024" in refused.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert server.most_memory() - most < 200 << 20
    client.channel.close()


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"building": "../x"}, "'building'"), ({"webhook": "http://elsewhere.example/"}, "webhook")],
)
def test_what_stands_beside_the_scans_is_judged_before_them(
    server: RunningServer, fields: dict[str, str], word: str
) -> None:
    client = Client(server.grpc_address)
    unreadable = [message("nonet.v1.Scan")(id="a", rssi={"x": float("nan")})]
    asked = METHODS["Fit"].request(**{**fit_fields("quick_x", scans=unreadable), **fields})
    refused = refusal_of(client, "Fit", asked.SerializeToString())
    assert (refused.code(), word in refused.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    client.channel.close()


@pytest.mark.parametrize("power", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["Identify", "Fit"])
def test_numbers_that_json_does_not_have_are_refused_as_they_are(
    server: RunningServer, name: str, power: float
) -> None:
    client = Client(server.grpc_address)
    fields = fit_fields("quick_home") if name == "Fit" else {"building": "quick_home"}
    fields["scans"] = [message("nonet.v1.Scan")(id="a", rssi={"x": power})]
    refused = refusal_of(client, name, METHODS[name].request(**fields).SerializeToString())
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"got {power} for 'x'" in refused.details()
    client.channel.close()
