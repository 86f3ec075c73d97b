"""`POST /v1/adapt/{model}` as a job on a real gateway: versions, sites, declined ones, a killed server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from nonet.runtime.oip.messages import methods
from tests.support import handmade_regressors as handmade
from tests.support.adapt_worker import DECLINES, SLOW, STEPS
from tests.support.adapting_gateway import adapting_settings
from tests.support.building_gateway import events, under_way, wait_for
from tests.support.running_server import RunningServer, assert_refused, running

METHODS = {method.name: method for method in methods("nonet.v1.Adaptation")}
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("adapt")
    for name in ("prices", "trips", "steps"):
        handmade.publish_linear(folder / "models", name, companions=True, family="")
    with running(folder / "models", folder / "server", adapting_settings()) as started:
        yield started


def adapt(gateway: RunningServer, model: str, **fields: Any) -> httpx.Response:
    return gateway.http.post(f"/v1/adapt/{model}", json={"inputs": ROWS.tolist(), **fields})


def done(gateway: RunningServer, reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 202, reply.text
    result: dict[str, Any] = wait_for(gateway, reply.json()["job"]["id"], "succeeded")["result"]
    return result


def version_of(gateway: RunningServer, model: str) -> str:
    reply = gateway.http.post(f"/v1/regress/{model}", json={"inputs": [[1, 2, 3]]})
    assert reply.status_code == 200, reply.text
    version: str = reply.json()["version"]
    return version


def test_what_is_accepted_is_the_next_version_and_what_is_not_changes_nothing(gateway: RunningServer) -> None:
    declined = done(gateway, adapt(gateway, "prices", seed=DECLINES))
    assert (declined["decision"], declined["version"]) == ("declined", "")
    assert version_of(gateway, "prices") == "1"
    tried = done(gateway, adapt(gateway, "prices", activate=False))
    assert (tried["decision"], tried["version"]) == ("accepted", "")
    assert version_of(gateway, "prices") == "1"
    accepted = done(gateway, adapt(gateway, "prices"))
    assert (accepted["model"], accepted["version"]) == ("prices", "2")
    assert version_of(gateway, "prices") == "2"
    again = done(gateway, adapt(gateway, "prices"))
    assert (again["version"], again["begun_at"]) == ("3", 0)


def test_what_is_found_so_far_is_told_while_the_job_runs(gateway: RunningServer) -> None:
    job = adapt(gateway, "prices", seed=SLOW, activate=False).json()["job"]["id"]
    jobs = {method.name: method for method in methods("nonet.v1.Jobs")}["WatchJob"]
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        watch = channel.unary_stream(
            jobs.path,
            request_serializer=jobs.request.SerializeToString,
            response_deserializer=jobs.response.FromString,
        )
        typed = list(watch(jobs.request(id=job), timeout=60))
    assert [json.loads(each.partial_json)["rows"] for each in typed if each.partial_json]
    assert typed[-1].state == "succeeded"
    assert not typed[-1].partial_json
    again = adapt(gateway, "prices", seed=SLOW, activate=False, epochs=3).json()["job"]["id"]
    seen = [found for _, _, found in events(gateway, again)]
    told = [found["partial"]["rows"] for found in seen if found["partial"]]
    assert len(told) >= 2
    assert told == sorted(told)
    assert (seen[-1]["state"], seen[-1]["partial"]) == ("succeeded", None)


def test_a_site_has_a_model_of_its_own_which_is_listed_and_deleted(gateway: RunningServer) -> None:
    accepted = done(gateway, adapt(gateway, "trips", site="coast"))
    assert (accepted["model"], accepted["version"]) == ("trips@coast", "1")
    assert version_of(gateway, "trips@coast") == "1"
    further = done(gateway, adapt(gateway, "trips@coast"))
    assert (further["model"], further["version"]) == ("trips@coast", "2")
    assert version_of(gateway, "trips") == "1"
    (site,) = gateway.http.get("/v1/adapt/trips/sites").json()["data"]
    assert (site["site"], site["model"], site["version"]) == ("coast", "trips@coast", "2")
    assert site["lineage"] == {"parent": "trips@coast", "parent_version": "1", "rows": 10}
    assert_refused(adapt(gateway, "trips@coast", site="more"), 400, "site already")
    assert_refused(gateway.http.get("/v1/adapt/nowhere/sites"), 404, "no regressor 'nowhere'")

    assert gateway.http.delete("/v1/adapt/trips/sites/coast").status_code == 204
    assert gateway.http.get("/v1/adapt/trips/sites").json()["data"] == []
    assert_refused(gateway.http.delete("/v1/adapt/trips/sites/coast"), 404, "no site 'coast'")
    assert_refused(
        gateway.http.post("/v1/regress/trips@coast", json={"inputs": [[1, 2, 3]]}), 404, "trips@coast"
    )
    assert version_of(gateway, "trips") == "1"


def test_over_grpc_the_rows_come_in_pieces(gateway: RunningServer) -> None:
    method = METHODS["Adapt"]
    content = handmade.table(ROWS)
    pieces = [
        method.request(model="steps", site="north", inputs=content[:40], activate=False, seed=3),
        method.request(inputs=content[40:]),
    ]
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        submit = channel.stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        job = submit(iter(pieces), timeout=60).job
        assert job.subject == "steps@north"
        found = wait_for(gateway, job.id, "succeeded")["result"]
        assert (found["sum"], found["version"]) == (float(ROWS.sum()), "")
        sites = METHODS["ListSites"]
        ask = channel.unary_unary(
            sites.path,
            request_serializer=sites.request.SerializeToString,
            response_deserializer=sites.response.FromString,
        )
        assert not ask(sites.request(model="steps"), timeout=30).sites


def test_a_killed_server_loses_nothing_and_the_live_version_answers_meanwhile(tmp_path: Path) -> None:
    models = tmp_path / "models"
    handmade.publish_linear(models, "prices", companions=True)
    settings = adapting_settings()
    settings["jobs"]["path"] = str(tmp_path / "jobs")
    first = RunningServer(models, tmp_path / "first", settings)
    try:
        job = adapt(first, "prices", seed=SLOW).json()["job"]["id"]
        assert under_way(first, job, 0.2)["state"] == "running"
        assert version_of(first, "prices") == "1"
    finally:
        first.kill()
    with running(models, tmp_path / "second", settings) as second:
        assert version_of(second, "prices") == "1"
        found = wait_for(second, job, "succeeded")["result"]
        assert 0 < found["begun_at"] < STEPS
        assert (found["version"], found["sum"]) == ("2", float(ROWS.sum()))
        assert version_of(second, "prices") == "2"
