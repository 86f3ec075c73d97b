"""A building belongs to the tenant who fitted it first: nobody else may refit or delete it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from nonet.runtime.oip.messages import OPEN_INFERENCE, methods
from tests.support.building_gateway import BUILDINGS, toy_settings, upload, worker_of, workers_of
from tests.support.running_server import RunningServer, assert_refused, eventually

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]
KEYS = {"ann-lane": "key-of-ann", "ben-hill": "key-of-ben"}
HOME = {"00:00:00:00:00:01": -40, "00:00:00:00:00:02": -60}


def guarded(**jobs: Any) -> dict[str, dict[str, Any]]:
    return {**toy_settings(**jobs), "auth": {"keys": KEYS}}


class Tenant:
    """What one tenant asks of a server; ``key`` "" sends none."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self.key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=60)

    def fit(self, building: str, **fields: Any) -> httpx.Response:
        return self.http.post(BUILDINGS, json=upload(building, **fields))

    def fitted(self, building: str, **fields: Any) -> str:
        """Fit a building and wait; the version."""
        reply = self.fit(building, **fields)
        assert reply.status_code == 202, reply.text
        found = self.ended(reply.json()["job"]["id"])
        assert found["state"] == "succeeded", found
        version: str = found["result"]["version"]
        return version

    def job(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{job}").json()
        return found

    def ended(self, job: str) -> dict[str, Any]:
        eventually(lambda: self.job(job)["ended_at"] is not None, "the job has ended", 90.0)
        return self.job(job)


Met = Callable[[RunningServer, str], Tenant]


@pytest.fixture
def meet() -> Iterator[Met]:
    """Tenants of a server by their keys; they leave with the test."""
    with contextlib.ExitStack() as stack:

        def one(server: RunningServer, key: str) -> Tenant:
            tenant = Tenant(server, key)
            stack.enter_context(tenant.http)
            return tenant

        yield one


@pytest.fixture
def tenants(start_server: Start, own_repository: Path, meet: Met) -> tuple[RunningServer, Tenant, Tenant]:
    server = start_server(own_repository, guarded())
    return server, meet(server, KEYS["ann-lane"]), meet(server, KEYS["ben-hill"])


def assert_not_yours(reply: httpx.Response) -> None:
    assert_refused(reply, 403, "another tenant")
    assert reply.json()["error"]["code"] == "BUILDING_NOT_YOURS"


def test_only_its_owner_may_refit_and_delete_a_building(
    tenants: tuple[RunningServer, Tenant, Tenant],
) -> None:
    server, ann, ben = tenants
    assert ann.fitted("quick_home") == "1"
    assert_not_yours(ben.fit("quick_home"))
    assert_not_yours(ben.http.delete(f"{BUILDINGS}/quick_home"))
    for verb in ("load", "unload"):
        path = f"/v2/repository/models/floors_quick_home/{verb}"
        assert_refused(ben.http.post(path, json={}), 403, "another tenant")
    with grpc.insecure_channel(server.grpc_address) as channel:
        for service, name, fields in (
            ("nonet.v1.FloorIdentification", "DeleteBuilding", {"building": "quick_home"}),
            (OPEN_INFERENCE, "RepositoryModelLoad", {"model_name": "floors_quick_home"}),
            (OPEN_INFERENCE, "RepositoryModelUnload", {"model_name": "floors_quick_home"}),
        ):
            method = next(each for each in methods(service) if each.name == name)
            call = channel.unary_unary(method.path, response_deserializer=method.response.FromString)
            with pytest.raises(grpc.RpcError) as refused:
                call(
                    method.request(**fields).SerializeToString(),
                    timeout=60,
                    metadata=(("authorization", f"Bearer {ben.key}"),),
                )
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, name
    # Buildings are models: all may look at them and ask them. Whose they are is nobody's business.
    scans = {"scans": [{"rssi": HOME}]}
    for path, body in (
        (BUILDINGS, None),
        (f"{BUILDINGS}/quick_home", None),
        (f"{BUILDINGS}/quick_home/identify", scans),
        ("/v1/models", None),
        ("/v2/models/floors_quick_home/config", None),
        ("/v2/models/identify.floors_quick_home/config", None),
    ):
        reply = ben.http.get(path) if body is None else ben.http.post(path, json=body)
        assert reply.status_code == 200, reply.text
        assert "ann-lane" not in reply.text
        assert ann.key not in reply.text
    assert ben.fitted("quick_other") == "1"
    for verb in ("unload", "load"):
        path = f"/v2/repository/models/floors_quick_home/{verb}"
        assert ann.http.post(path, json={}).status_code == 200
    assert ann.fitted("quick_home", seed=1) == "2"
    assert ann.http.delete(f"{BUILDINGS}/quick_home").status_code == 204
    # A name that is free again is anybody's.
    assert ben.fitted("quick_home") == "1"
    assert_not_yours(ann.fit("quick_home"))


def test_the_owner_is_remembered_over_restarts_and_while_keys_are_off(
    start_server: Start, own_repository: Path, meet: Met
) -> None:
    server = start_server(own_repository, guarded())
    assert meet(server, KEYS["ann-lane"]).fitted("quick_home") == "1"
    assert server.stop() == 0
    server = start_server(own_repository, toy_settings())
    everybody = meet(server, "")
    assert everybody.fitted("quick_home", seed=1) == "2"
    assert everybody.fitted("quick_open") == "1"
    assert server.stop() == 0
    manifest = (own_repository / "floors_quick_home" / "2" / "manifest.json").read_text()
    assert json.loads(manifest)["owner"] == "ann-lane"
    assert not any(key in manifest for key in KEYS.values())
    server = start_server(own_repository, guarded())
    ann, ben = (meet(server, key) for key in KEYS.values())
    assert_not_yours(ben.fit("quick_home"))
    assert ann.fitted("quick_home", seed=2) == "3"
    # What was fitted without keys belongs to nobody, and stays so.
    assert ben.fitted("quick_open", seed=1) == "2"
    assert ann.fitted("quick_open", seed=2) == "3"
    assert ben.http.delete(f"{BUILDINGS}/quick_open").status_code == 204


@pytest.mark.parametrize("gateways", [1, 2])
def test_of_two_who_want_the_same_new_name_at_once_one_gets_it(
    start_server: Start, own_repository: Path, meet: Met, tmp_path: Path, gateways: int
) -> None:
    """Also through two gateways that share their jobs."""
    servers = [start_server(own_repository, guarded(path=str(tmp_path / "jobs"))) for _ in range(gateways)]
    ann, ben = meet(servers[0], KEYS["ann-lane"]), meet(servers[-1], KEYS["ben-hill"])
    for attempt in range(4 * gateways):
        replies: dict[str, httpx.Response] = {}
        together = threading.Barrier(2)

        def submit(
            tenant: Tenant, attempt: int = attempt, together: Any = together, replies: Any = replies
        ) -> None:
            together.wait()
            replies[tenant.key] = tenant.fit(f"quick_{attempt}")

        threads = [threading.Thread(target=submit, args=(each,)) for each in (ann, ben)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(reply.status_code for reply in replies.values()) == [202, 403]
        (winner,) = [each for each in (ann, ben) if replies[each.key].status_code == 202]
        (loser,) = [each for each in (ann, ben) if each is not winner]
        assert_not_yours(replies[loser.key])
        assert winner.ended(replies[winner.key].json()["job"]["id"])["state"] == "succeeded"
        assert_not_yours(loser.fit(f"quick_{attempt}"))


def test_a_name_is_kept_for_a_first_fit_until_it_has_ended(
    tenants: tuple[RunningServer, Tenant, Tenant],
) -> None:
    _, ann, ben = tenants
    running = ann.fit("hang_home").json()["job"]["id"]
    waiting = ann.fit("quick_home").json()["job"]["id"]
    for building in ("hang_home", "quick_home"):
        assert_not_yours(ben.fit(building))
        assert_not_yours(ben.http.delete(f"{BUILDINGS}/{building}"))
    again = ann.fit("quick_home", seed=1).json()["job"]["id"]
    assert ann.http.delete(f"/v1/jobs/{waiting}").status_code == 200
    assert_not_yours(ben.fit("quick_home"))
    assert ann.http.delete(f"/v1/jobs/{again}").status_code == 200
    free = ben.fit("quick_home").json()["job"]["id"]
    assert_not_yours(ann.fit("quick_home"))
    assert ann.http.delete(f"/v1/jobs/{running}").status_code == 202
    assert ann.ended(running)["state"] == "cancelled"
    assert ben.ended(free)["state"] == "succeeded"
    assert_not_yours(ann.fit("quick_home"))


def test_of_two_gateways_that_know_nothing_of_each_other_the_first_fit_to_end_wins(
    start_server: Start, own_repository: Path, meet: Met
) -> None:
    """Each has its own jobs; the repository that both publish in decides, whichever was submitted first."""
    first, second = (start_server(own_repository, guarded()) for _ in range(2))
    ann, ben = meet(first, KEYS["ann-lane"]), meet(second, KEYS["ben-hill"])
    early = ann.fit("slow_home").json()["job"]["id"]
    eventually(lambda: ann.job(early)["state"] == "running" and workers_of(first.popen.pid), "it runs", 90.0)
    worker = worker_of(first)
    worker.suspend()
    try:
        assert ben.fitted("slow_home") == "1"
    finally:
        worker.resume()
    failed = ann.ended(early)
    assert failed["state"] == "failed"
    assert (failed["error"]["type"], failed["error"]["code"]) == ("permission_error", "BUILDING_NOT_YOURS")
    assert "another tenant" in failed["error"]["message"]
    assert [each.name for each in (own_repository / "floors_slow_home").iterdir() if each.is_dir()] == ["1"]
    assert_not_yours(ann.fit("slow_home"))
