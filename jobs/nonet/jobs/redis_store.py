"""Jobs in Redis, for gateways and workers on any number of machines.

The calls are those of :class:`~nonet.jobs.store_contract.JobStore`; each is one run of a script, so it
takes effect whole. Leases and times are on the server's clock. A lease is over at once when its process is
gone, where that can be seen: on the machine, or in the container, that the process is of. Nothing but Redis
knows of the jobs, so they last as long as it keeps them: see :meth:`RedisJobStore.durability_warnings`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nonet.jobs.job import Beat, Claim, Job, JobError, JobState, NewJob, Orders, Page, WebhookState
from nonet.jobs.job_records import (
    claim_of,
    job_ended,
    job_of,
    json_of,
    key_reused,
    queue_full,
    quota_used,
    unknown_job,
)
from nonet.jobs.policy import JobPolicy
from nonet.jobs.process_identity import is_alive
from nonet.jobs.redis_connection import RedisLink
from nonet.jobs.requirements import Demand, Queue, requirements_text
from nonet.jobs.store_contract import ENDINGS_AT_ONCE, PHASE_LENGTH

_ANY_TENANT = "*"
Fields = Mapping[str, str]


class RedisJobStore:
    """See the module's text; connects when it is first needed.

    Args:
        url, prefix, timeout: see :class:`~nonet.jobs.store_address.StoreAddress`.

    Raises ValueError for a URL that cannot be one.
    """

    def __init__(self, url: str, prefix: str, timeout: float) -> None:
        self._link = RedisLink(url, prefix, timeout)

    # -- callers --------------------------------------------------------------------------------

    def submit(self, new: NewJob, policy: JobPolicy) -> tuple[Job, bool]:
        status, answer = self._link.call(
            "submit",
            new.id,
            new.kind,
            new.subject,
            new.tenant,
            json_of(new.spec) or "",
            new.digest,
            new.key,
            new.webhook,
            requirements_text(new.requirements),
            policy.max_waiting,
            policy.max_waiting_per_tenant,
        )
        if status == "reused":
            raise key_reused()
        if status == "quota":
            raise quota_used(answer)
        if status == "full":
            raise queue_full(answer)
        return job_of(_fields(answer)), status == "new"

    def get(self, job: str, tenant: str | None = None) -> Job:
        return job_of(self._read(job, tenant))

    def page(
        self, tenant: str | None, *, states: Collection[JobState] = (), after: str = "", limit: int = 20
    ) -> Page:
        before = f"({self._read(after, tenant)['number']}" if after else "+inf"
        scope = ":state" if tenant is None else f":tenant:{tenant}"
        lists = [f"{scope}:{state.value}" for state in states or JobState]
        _, found = self._link.call("page", before, limit + 1, *lists)
        jobs = _jobs(found)
        return Page(tuple(jobs[:limit]), len(jobs) > limit)

    def counts(self) -> Mapping[JobState, int]:
        _, counts = self._link.call("counts", "state", *JobState)
        return dict(zip(JobState, counts, strict=True))

    def active(self, kind: str, subject: str) -> Job | None:
        _, found = self._link.call("active", kind, subject)
        return job_of(_fields(found)) if found else None

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        status, answer = self._link.call("cancel", job, _ANY_TENANT if tenant is None else tenant)
        if status == "missing":
            raise unknown_job()
        found = job_of(_fields(answer))
        if found.state in (JobState.SUCCEEDED, JobState.FAILED):
            raise job_ended(found.state)
        return found

    # -- workers and those who start them -------------------------------------------------------

    def claim(
        self, owner: str, lease_seconds: float, concurrency: int, able: Collection[str] | None = None
    ) -> Claim | None:
        _, found = self._link.call(
            "claim", owner, lease_seconds, concurrency, int(able is None), *(able or ())
        )
        return claim_of(_fields(found)) if found else None

    def claimed(self, job: str, owner: str) -> Claim | None:
        _, found = self._link.call("claimed", job, owner)
        return claim_of(_fields(found)) if found else None

    def beat(self, job: str, owner: str, lease_seconds: float, beat: Beat) -> Orders:
        eta = "" if beat.eta_seconds is None else repr(float(beat.eta_seconds))
        far = repr(float(beat.share)), beat.phase[:PHASE_LENGTH], eta, json_of(beat.partial) or ""
        status, _ = self._link.call("beat", job, owner, lease_seconds, beat.worker, beat.seconds, *far)
        return Orders(cancelled=status == "cancelled", lost=status == "lost")

    def finish(
        self,
        job: str,
        owner: str,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: JobError | None = None,
    ) -> bool:
        given = (json_of(value) or "" for value in (result, error))
        status, _ = self._link.call("finish", job, owner, state.value, *given)
        return status == "ok"

    def give_back(
        self, job: str, owner: str, *, blame: str = "", max_attempts: int = 0, begun: bool = True
    ) -> Job | None:
        status, found = self._link.call("give_back", job, owner, blame, max_attempts, int(begun))
        return job_of(_fields(found)) if status == "ok" else None

    def reap(self, max_attempts: int, mine: Collection[str] = ()) -> list[Job]:
        _, running = self._link.call("overdue")
        # Those with a process are of this place and have a lease; those without have none any more.
        over = [
            (job, owner, worker)
            for job, owner, worker in running
            if owner not in mine and not (worker and is_alive(worker))
        ]
        if not over:
            return []
        _, reaped = self._link.call("reap", max_attempts, *(word for each in over for word in each))
        return _jobs(reaped)

    def forget(self, keep_seconds: float, keep_jobs: int) -> list[str]:
        ids: list[str] = []
        status = "more"
        while status == "more":
            status, gone = self._link.call("forget", keep_seconds, keep_jobs)
            ids += gone
        return ids

    def now(self) -> float:
        return float(self._link.call("now")[1])

    def unfinished(self) -> list[str]:
        _, ids = self._link.call("unfinished")
        return list(ids)

    def last_ending(self) -> int:
        _, number = self._link.call("ending")
        return int(number or 0)

    def ended(self, after: int) -> list[Job]:
        _, found = self._link.call("ended", after, ENDINGS_AT_ONCE)
        return _jobs(found)

    # -- who works where ------------------------------------------------------------------------

    def announce(self, words: Collection[str], seconds: float) -> None:
        self._link.call("announce", seconds, *sorted(words))

    def is_available(self, kind: str) -> bool:
        return bool(self._link.call("is_available", kind)[1])

    def demand(self) -> Demand:
        _, (queues, workers) = self._link.call("demand")
        return Demand(
            tuple(Queue(tuple(lane.split()), waiting, note) for lane, waiting, note in queues),
            tuple(frozenset(words.split()) for words in workers),
        )

    def note(self, words: Sequence[str], note: str) -> None:
        self._link.call("note", " ".join(words), note[:PHASE_LENGTH])

    def agree_on_folder(self, folder: str) -> bool:
        return bool(self._link.call("agree_on_folder", folder)[1] == folder)

    def durability_warnings(self) -> list[str]:
        said = "\r\n".join(self._link.query("INFO", each) or "" for each in ("memory", "persistence"))
        facts = dict(line.split(":", 1) for line in said.split("\r\n") if ":" in line)
        _, fsync = self._link.query("CONFIG", "GET", "appendfsync") or ("", "")
        found = []
        if facts.get("aof_enabled", "1") != "1":
            found.append("Redis writes no append-only file, so a restart loses jobs: set appendonly yes")
        elif fsync not in ("", "always"):
            found.append("Redis may lose jobs of the last seconds when it crashes: set appendfsync always")
        if facts.get("maxmemory", "0") != "0" and facts.get("maxmemory_policy") != "noeviction":
            found.append("Redis may evict jobs when memory is short: set maxmemory-policy noeviction")
        return found

    # -- webhooks -------------------------------------------------------------------------------

    def claim_webhook(self, lease_seconds: float) -> Job | None:
        _, found = self._link.call("claim_webhook", lease_seconds)
        return job_of(_fields(found)) if found else None

    def settle_webhook(
        self, job: str, attempt: int, state: WebhookState, *, error: str = "", again_in: float = 0.0
    ) -> bool:
        status, _ = self._link.call("settle_webhook", job, attempt, state.value, error, again_in)
        return status == "ok"

    def webhook_counts(self) -> Mapping[WebhookState, int]:
        _, counts = self._link.call("counts", "webhooks", *WebhookState)
        return dict(zip(WebhookState, counts, strict=True))

    def close(self) -> None:
        self._link.close()

    # -- inside ---------------------------------------------------------------------------------

    def _read(self, job: str, tenant: str | None) -> Fields:
        fields = _fields(self._link.call("get", job)[1])
        if not fields or (tenant is not None and fields["tenant"] != tenant):
            raise unknown_job()
        return fields


def _fields(flat: Sequence[str]) -> Fields:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _jobs(found: Sequence[Sequence[str]]) -> list[Job]:
    """Those that are there: a server that evicts keys may have lost some."""
    return [job_of(_fields(flat)) for flat in found if flat]
