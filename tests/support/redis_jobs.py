"""Jobs for the tests of the store in Redis, and what it has written of them."""

from __future__ import annotations

from nonet.jobs import Job, JobPolicy, JobStore, NewJob, new_job_id
from nonet.jobs.job import Beat
from nonet.runtime.errors import ServingError
from tests.support.redis_server import RedisServer

POLICY = JobPolicy(max_waiting=5, max_waiting_per_tenant=3)


class Keys:
    """What one store has written."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self.client = server.client
        self.root = f"{{{prefix}}}:jobs"

    def of(self, *names: str) -> str:
        return ":".join((self.root, *names))

    def all(self) -> set[str]:
        return {name.removeprefix(self.root + ":") for name in self.client.scan_iter(match=f"{self.root}*")}

    def now(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds) + float(micros) / 1e6


def new(tenant: str = "ann", key: str = "", webhook: str = "") -> NewJob:
    return NewJob(new_job_id(), "toy", "x", tenant, {}, "d", key, webhook)


def queue(store: JobStore, tenant: str = "ann") -> Job:
    return store.submit(new(tenant), POLICY)[0]


def beat(store: JobStore, job: str, worker: str = "1@0", lease: float = 60.0) -> None:
    assert not store.beat(job, "me", lease, Beat(worker, 1, 0.5, "toying")).lost


def works(store: JobStore) -> bool:
    try:
        store.counts()
    except ServingError:
        return False
    return True
