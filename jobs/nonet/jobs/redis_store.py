"""Jobs in Redis, for gateways and workers on any number of machines.

The calls are those of :class:`~nonet.jobs.store_contract.JobStore`; each is one run of a script, so it
takes effect whole. Leases and times are on the server's clock. A lease is over at once when its process is
gone, where that can be seen: on the machine, or in the container, that the process is of. Nothing but Redis
knows of the jobs, so they last as long as it keeps them: see :meth:`RedisJobStore.concerns`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from nonet.jobs.job import Claim, Job, JobState, NewJob, Orders, Page, Webhook, WebhookState
from nonet.jobs.policy import JobPolicy
from nonet.jobs.process_identity import is_alive
from nonet.jobs.redis_connection import RedisLink
from nonet.jobs.requirements import Demand, Queue, needs_text
from nonet.jobs.store_contract import PHASE_LENGTH, QUEUE_RETRY
from nonet.runtime.errors import Conflict, NotFound, QuotaExceeded, Unavailable

__all__ = ["RedisJobStore"]

_ANY_TENANT = "*"
_ENDINGS_AT_ONCE = 100
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
            orjson.dumps(dict(new.spec)),
            new.digest,
            new.key,
            new.webhook,
            needs_text(new.needs),
            policy.max_waiting,
            policy.max_waiting_per_tenant,
        )
        if status == "reused":
            raise Conflict(
                "this Idempotency-Key was sent before with another request; use a new key",
                param="Idempotency-Key",
                code="IDEMPOTENCY_KEY_REUSED",
            )
        if status == "quota":
            raise QuotaExceeded(
                f"{answer} of your jobs wait already; wait for one to end, or cancel one",
                code="JOBS_QUOTA",
                retry_after=QUEUE_RETRY,
            )
        if status == "full":
            raise Unavailable(
                f"{answer} jobs wait already; retry later", code="JOBS_FULL", retry_after=QUEUE_RETRY
            )
        return _job(_fields(answer)), status == "new"

    def get(self, job: str, tenant: str | None = None) -> Job:
        return _job(self._read(job, tenant))

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
        return _job(_fields(found)) if found else None

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        status, answer = self._link.call("cancel", job, _ANY_TENANT if tenant is None else tenant)
        if status == "missing":
            raise _unknown()
        found = _job(_fields(answer))
        if found.state in (JobState.SUCCEEDED, JobState.FAILED):
            raise Conflict(f"the job has {found.state.value} already", param="job", code="JOB_ENDED")
        return found

    # -- workers and those who start them -------------------------------------------------------

    def claim(
        self, owner: str, lease_seconds: float, concurrency: int, words: Collection[str] | None = None
    ) -> Claim | None:
        _, found = self._link.call(
            "claim", owner, lease_seconds, concurrency, int(words is None), *(words or ())
        )
        return _claim(_fields(found)) if found else None

    def claimed(self, job: str, owner: str) -> Claim | None:
        _, found = self._link.call("claimed", job, owner)
        return _claim(_fields(found)) if found else None

    def beat(
        self,
        job: str,
        owner: str,
        lease_seconds: float,
        *,
        worker: str,
        seconds: float,
        progress: float,
        phase: str,
        eta_seconds: float | None,
    ) -> Orders:
        eta = "" if eta_seconds is None else repr(float(eta_seconds))
        share = repr(float(min(max(progress, 0.0), 1.0)))
        status, _ = self._link.call(
            "beat", job, owner, lease_seconds, worker, seconds, share, phase[:PHASE_LENGTH], eta
        )
        return Orders(cancelled=status == "cancelled", lost=status == "lost")

    def finish(
        self,
        job: str,
        owner: str,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> bool:
        status, _ = self._link.call("finish", job, owner, state.value, _json(result), _json(error))
        return status == "ok"

    def give_back(
        self, job: str, owner: str, *, blame: str = "", max_attempts: int = 0, begun: bool = True
    ) -> Job | None:
        status, found = self._link.call("give_back", job, owner, blame, max_attempts, int(begun))
        return _job(_fields(found)) if status == "ok" else None

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

    def spent(self, owner: str) -> float | None:
        _, seconds = self._link.call("spent", owner)
        return None if seconds is None else float(seconds)

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
        _, found = self._link.call("ended", after, _ENDINGS_AT_ONCE)
        return _jobs(found)

    # -- who works where ------------------------------------------------------------------------

    def offer(self, words: Collection[str], seconds: float) -> None:
        self._link.call("offer", seconds, *sorted(words))

    def is_offered(self, kind: str) -> bool:
        return bool(self._link.call("offered", kind)[1])

    def demand(self) -> Demand:
        _, (queues, offers) = self._link.call("demand")
        return Demand(
            tuple(Queue(tuple(lane.split()), waiting, note) for lane, waiting, note in queues),
            tuple(frozenset(words.split()) for words in offers),
        )

    def note(self, words: Sequence[str], note: str) -> None:
        self._link.call("note", " ".join(words), note[:PHASE_LENGTH])

    def keep_in(self, folder: str) -> bool:
        return bool(self._link.call("keep_in", folder)[1] == folder)

    def concerns(self) -> list[str]:
        facts = {**self._link.facts("memory"), **self._link.facts("persistence")}
        found = []
        if facts.get("aof_enabled", "1") != "1":
            found.append("Redis writes no append-only file, so a restart loses jobs: set appendonly yes")
        elif self._link.setting("appendfsync") not in ("", "always"):
            found.append("Redis may lose jobs of the last seconds when it crashes: set appendfsync always")
        if facts.get("maxmemory", "0") != "0" and facts.get("maxmemory_policy") != "noeviction":
            found.append("Redis may evict jobs when memory is short: set maxmemory-policy noeviction")
        return found

    # -- webhooks -------------------------------------------------------------------------------

    def claim_webhook(self, lease_seconds: float) -> Job | None:
        _, found = self._link.call("claim_webhook", lease_seconds)
        return _job(_fields(found)) if found else None

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
            raise _unknown()
        return fields


def _unknown() -> NotFound:
    return NotFound("there is no such job", param="job", code="JOB_NOT_FOUND")


def _fields(flat: Sequence[str]) -> Fields:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _json(value: Mapping[str, Any] | None) -> bytes:
    return b"" if value is None else orjson.dumps(dict(value))


def _claim(fields: Fields) -> Claim:
    return Claim(_job(fields), orjson.loads(fields["spec"]), float(fields["spent"]))


def _jobs(found: Sequence[Sequence[str]]) -> list[Job]:
    """Those that are there: a server that evicts keys may have lost some."""
    return [_job(_fields(flat)) for flat in found if flat]


def _job(fields: Fields) -> Job:
    def number(name: str) -> float | None:
        return float(fields[name]) if name in fields else None

    return Job(
        id=fields["id"],
        kind=fields["kind"],
        subject=fields["subject"],
        tenant=fields["tenant"],
        state=JobState(fields["state"]),
        phase=fields["phase"],
        progress=float(fields["progress"]),
        eta_seconds=number("eta"),
        result=orjson.loads(fields["result"]) if "result" in fields else None,
        error=orjson.loads(fields["error"]) if "error" in fields else None,
        attempts=int(fields["attempts"]),
        cancelling=fields["cancelling"] == "1",
        created=float(fields["created"]),
        started=number("started"),
        ended=number("ended"),
        revision=int(fields["revision"]),
        webhook=_webhook(fields),
        ending=int(fields.get("ending", 0)),
    )


def _webhook(fields: Fields) -> Webhook | None:
    if "webhook" not in fields:
        return None
    return Webhook(
        fields["webhook"],
        WebhookState(fields["webhook_state"]),
        int(fields["webhook_attempts"]),
        fields.get("webhook_error"),
    )
