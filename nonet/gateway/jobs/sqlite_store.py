"""Jobs in one SQLite file, for the gateway and its workers on one machine.

The calls are those of :class:`~nonet.gateway.jobs.contract.JobStore`. Leases count on the clock of the
machine's uptime and name its boot, so neither a clock that is set nor a restart can make a dead worker look
alive; a lease is over at once when the process that it was given to is gone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import orjson

from nonet.gateway.jobs.job import Claim, Job, JobState, NewJob, Orders, Page, WebhookState
from nonet.gateway.jobs.policy import JobPolicy
from nonet.gateway.jobs.processes import boot_id, is_alive, uptime
from nonet.gateway.jobs.sqlite_file import SqliteFile
from nonet.gateway.jobs.sqlite_webhooks import claim_due, count_states, find_due, settle, webhook_of
from nonet.runtime.errors import Conflict, NotFound, QuotaExceeded, Unavailable

__all__ = ["DATABASE", "SqliteJobStore"]

DATABASE = "jobs.sqlite3"
"""Name of the database file in the state folder."""

_LIVE = (JobState.QUEUED.value, JobState.RUNNING.value)
_QUEUE_RETRY = 30.0
_PHASE_LENGTH = 80
_RELEASED = "owner = NULL, worker = NULL, boot = NULL, lease = NULL, eta = NULL, revision = revision + 1"


class SqliteJobStore:
    """See the module's text; the file is made when it is first needed.

    Args:
        path: of the database file.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)

    # -- callers --------------------------------------------------------------------------------

    def submit(self, new: NewJob, policy: JobPolicy) -> tuple[Job, bool]:
        with self._file.transaction() as db:
            earlier = _known(db, new.tenant, new.key, new.digest)
            if earlier is not None:
                return earlier, False
            waiting, own = db.execute(
                "SELECT count(*), ifnull(sum(tenant = ?), 0) FROM jobs WHERE state = 'queued'", (new.tenant,)
            ).fetchone()
            if own >= policy.max_waiting_per_tenant:
                raise QuotaExceeded(
                    f"{own} of your jobs wait already; wait for one to end, or cancel one",
                    code="JOBS_QUOTA",
                    retry_after=_QUEUE_RETRY,
                )
            if waiting >= policy.max_waiting:
                raise Unavailable(
                    f"{waiting} jobs wait already; retry later", code="JOBS_FULL", retry_after=_QUEUE_RETRY
                )
            db.execute(
                "INSERT INTO jobs (id, kind, subject, tenant, spec, digest, idempotency_key, created, "
                "webhook, webhook_state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.id,
                    new.kind,
                    new.subject,
                    new.tenant,
                    orjson.dumps(dict(new.spec)).decode(),
                    new.digest,
                    new.key or None,
                    time.time(),
                    new.webhook or None,
                    WebhookState.WAITING.value if new.webhook else None,
                ),
            )
            return _job(_row(db, new.id)), True

    def get(self, job: str, tenant: str | None = None) -> Job:
        with self._file.transaction(write=False) as db:
            return _job(_row(db, job, tenant))

    def page(
        self, tenant: str | None, *, states: Collection[JobState] = (), after: str = "", limit: int = 20
    ) -> Page:
        clauses, values = ["1"], []
        if tenant is not None:
            clauses.append("tenant = ?")
            values.append(tenant)
        if states:
            clauses.append(f"state IN ({', '.join('?' * len(states))})")
            values += [state.value for state in states]
        with self._file.transaction(write=False) as db:
            if after:
                clauses.append("number < ?")
                values.append(_row(db, after, tenant)["number"])
            rows = db.execute(
                f"SELECT * FROM jobs WHERE {' AND '.join(clauses)} ORDER BY number DESC LIMIT ?",
                (*values, limit + 1),
            ).fetchall()
        return Page(tuple(_job(row) for row in rows[:limit]), len(rows) > limit)

    def counts(self) -> Mapping[JobState, int]:
        with self._file.transaction(write=False) as db:
            found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state.value, 0) for state in JobState}

    def active(self, kind: str, subject: str) -> Job | None:
        with self._file.transaction(write=False) as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE state IN (?, ?) AND kind = ? AND subject = ? "
                "ORDER BY state = 'running' DESC, number LIMIT 1",
                (*_LIVE, kind, subject),
            ).fetchone()
        return None if row is None else _job(row)

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        with self._file.transaction() as db:
            state = JobState(_row(db, job, tenant)["state"])
            if state in (JobState.SUCCEEDED, JobState.FAILED):
                raise Conflict(f"the job has {state.value} already", param="job", code="JOB_ENDED")
            if state is JobState.QUEUED:
                _end(db, job, JobState.CANCELLED, None, None)
            elif state is JobState.RUNNING:
                db.execute(
                    "UPDATE jobs SET cancelling = 1, revision = revision + 1 WHERE id = ? AND NOT cancelling",
                    (job,),
                )
            return _job(_row(db, job))

    # -- workers and those who start them -------------------------------------------------------

    def claim(self, owner: str, lease_seconds: float, concurrency: int) -> Claim | None:
        with self._file.transaction() as db:
            (running,) = db.execute("SELECT count(*) FROM jobs WHERE state = 'running'").fetchone()
            if running >= concurrency:
                return None
            row = db.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', phase = 'starting', owner = ?, worker = NULL, boot = ?, "
                "lease = ?, attempts = attempts + 1, started = ifnull(started, ?), revision = revision + 1 "
                "WHERE id = ?",
                (owner, boot_id(), uptime() + lease_seconds, time.time(), row["id"]),
            )
            return _claim(_row(db, row["id"]))

    def claimed(self, job: str, owner: str) -> Claim | None:
        with self._file.transaction(write=False) as db:
            row = _owned(db, job, owner)
            return None if row is None else _claim(row)

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
        with self._file.transaction() as db:
            row = _owned(db, job, owner)
            if row is None:
                return Orders(lost=True)
            progress, phase = min(max(progress, 0.0), 1.0), phase[:_PHASE_LENGTH]
            changed = (progress, phase) != (row["progress"], row["phase"])
            db.execute(
                "UPDATE jobs SET worker = ?, boot = ?, lease = ?, spent = spent + ?, progress = ?, "
                "phase = ?, eta = ?, revision = revision + ? WHERE id = ?",
                (
                    worker,
                    boot_id(),
                    uptime() + lease_seconds,
                    seconds,
                    progress,
                    phase,
                    eta_seconds,
                    int(changed),
                    job,
                ),
            )
            return Orders(cancelled=bool(row["cancelling"]))

    def finish(
        self,
        job: str,
        owner: str,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> bool:
        with self._file.transaction() as db:
            if _owned(db, job, owner) is None:
                return False
            _end(db, job, state, result, error)
            return True

    def give_back(self, job: str, owner: str, *, blame: str = "", max_attempts: int = 0) -> Job | None:
        with self._file.transaction() as db:
            row = _owned(db, job, owner)
            return None if row is None else _give_back(db, row, blame, max_attempts)

    def reap(self, max_attempts: int, mine: Collection[str] = ()) -> list[Job]:
        with self._file.transaction(write=False) as db:
            if not [row for row in _running(db) if _is_over(row, mine)]:
                return []
        with self._file.transaction() as db:
            return [
                _give_back(db, row, "it was lost", max_attempts)
                for row in _running(db)
                if _is_over(row, mine)
            ]

    def spent(self, owner: str) -> float | None:
        with self._file.transaction(write=False) as db:
            row = db.execute(
                "SELECT spent FROM jobs WHERE owner = ? AND state = 'running'", (owner,)
            ).fetchone()
        return None if row is None else float(row["spent"])

    def forget(self, keep_seconds: float, keep_jobs: int) -> int:
        with self._file.transaction() as db:
            cursor = db.execute(
                "DELETE FROM jobs WHERE state NOT IN (?, ?) AND (ended < ? OR number <= ("
                "SELECT number FROM jobs WHERE state NOT IN (?, ?) ORDER BY number DESC LIMIT 1 OFFSET ?))",
                (*_LIVE, time.time() - keep_seconds, *_LIVE, keep_jobs),
            )
            return cursor.rowcount

    def unfinished(self) -> list[str]:
        with self._file.transaction(write=False) as db:
            return [row["id"] for row in db.execute("SELECT id FROM jobs WHERE state IN (?, ?)", _LIVE)]

    # -- webhooks -------------------------------------------------------------------------------

    def claim_webhook(self, lease_seconds: float, held: Collection[str] = ()) -> Job | None:
        with self._file.transaction(write=False) as db:
            if find_due(db, held) is None:
                return None
        with self._file.transaction() as db:
            job = find_due(db, held)
            if job is None:
                return None
            claim_due(db, job, lease_seconds)
            return _job(_row(db, job))

    def settle_webhook(
        self, job: str, attempt: int, state: WebhookState, *, error: str = "", again_in: float = 0.0
    ) -> bool:
        with self._file.transaction() as db:
            return settle(db, job, attempt, state, error, again_in)

    def webhook_counts(self) -> Mapping[WebhookState, int]:
        with self._file.transaction(write=False) as db:
            return count_states(db)

    def close(self) -> None:
        self._file.close()


def _row(db: sqlite3.Connection, job: str, tenant: str | None = None) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND (? IS NULL OR tenant = ?)", (job, tenant, tenant)
    ).fetchone()
    if row is None:
        raise NotFound("there is no such job", param="job", code="JOB_NOT_FOUND")
    return row


def _owned(db: sqlite3.Connection, job: str, owner: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND owner = ? AND state = 'running'", (job, owner)
    ).fetchone()
    return row


def _known(db: sqlite3.Connection, tenant: str, key: str, digest: str) -> Job | None:
    if not key:
        return None
    row = db.execute("SELECT * FROM jobs WHERE tenant = ? AND idempotency_key = ?", (tenant, key)).fetchone()
    if row is None:
        return None
    if row["digest"] != digest:
        raise Conflict(
            "this Idempotency-Key was sent before with another request; use a new key",
            param="Idempotency-Key",
            code="IDEMPOTENCY_KEY_REUSED",
        )
    return _job(row)


def _running(db: sqlite3.Connection) -> list[sqlite3.Row]:
    return db.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()


def _is_over(row: sqlite3.Row, mine: Collection[str]) -> bool:
    """Whether the lease of a running job has ended."""
    if row["owner"] in mine:
        return False
    if row["boot"] != boot_id() or row["lease"] < uptime():
        return True
    return row["worker"] is not None and not is_alive(row["worker"])


def _give_back(db: sqlite3.Connection, row: sqlite3.Row, blame: str, max_attempts: int) -> Job:
    job, deaths = row["id"], row["deaths"] + bool(blame)
    if row["cancelling"]:
        _end(db, job, JobState.CANCELLED, None, None)
    elif blame and deaths >= max_attempts:
        often = f"{deaths} times, the last time" if deaths > 1 else "once,"
        message = f"the process of the job ended {often} because {blame}; it is not tried again"
        error = {"message": message, "type": "server_error", "param": None, "code": "WORKER_CRASHED"}
        db.execute("UPDATE jobs SET deaths = ? WHERE id = ?", (deaths, job))
        _end(db, job, JobState.FAILED, None, error)
    else:
        db.execute(
            f"UPDATE jobs SET state = 'queued', phase = 'waiting to go on', deaths = ?, "
            f"attempts = attempts - ?, {_RELEASED} WHERE id = ?",
            (deaths, int(not blame), job),
        )
    return _job(_row(db, job))


def _end(
    db: sqlite3.Connection,
    job: str,
    state: JobState,
    result: Mapping[str, Any] | None,
    error: Mapping[str, Any] | None,
) -> None:
    db.execute(
        f"UPDATE jobs SET state = ?, result = ?, error = ?, ended = ?, cancelling = 0, "
        f"progress = iif(? = 'succeeded', 1.0, progress), phase = ?, {_RELEASED} WHERE id = ?",
        (state.value, _json(result), _json(error), time.time(), state.value, state.value, job),
    )


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(dict(value)).decode()


def _claim(row: sqlite3.Row) -> Claim:
    return Claim(_job(row), orjson.loads(row["spec"]), row["spent"])


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        subject=row["subject"],
        tenant=row["tenant"],
        state=JobState(row["state"]),
        phase=row["phase"],
        progress=row["progress"],
        eta_seconds=row["eta"],
        result=None if row["result"] is None else orjson.loads(row["result"]),
        error=None if row["error"] is None else orjson.loads(row["error"]),
        attempts=row["attempts"],
        cancelling=bool(row["cancelling"]),
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        revision=row["revision"],
        webhook=webhook_of(row),
    )
