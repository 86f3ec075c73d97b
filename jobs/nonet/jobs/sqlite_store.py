"""Jobs in one SQLite file, for the gateway and its workers on one machine.

The calls are those of :class:`~nonet.jobs.store_contract.JobStore`. Leases count on the clock of the
machine's uptime and name its boot, so neither a clock that is set nor a restart can make a dead worker look
alive; a lease is over at once when the process that it was given to is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nonet.jobs import sqlite_queues
from nonet.jobs.job import Claim, Job, JobState, NewJob, Orders, Page, WebhookState
from nonet.jobs.job_records import claim_of, job_ended, job_of, json_of, queue_full, quota_used
from nonet.jobs.policy import JobPolicy
from nonet.jobs.process_identity import boot_id, uptime
from nonet.jobs.requirements import Demand, requirements_text
from nonet.jobs.sqlite_file import SqliteFile
from nonet.jobs.sqlite_queues import first_for
from nonet.jobs.sqlite_rows import (
    LIVE,
    end,
    give_back,
    is_over,
    known_job,
    noted,
    owned_row,
    row_of,
    running_rows,
)
from nonet.jobs.sqlite_webhooks import claim_due, count_states, find_due, settle
from nonet.jobs.store_contract import PHASE_LENGTH

__all__ = ["DATABASE", "SqliteJobStore"]

DATABASE = "jobs.sqlite3"
"""Name of the database file in the state folder."""
_ENDINGS_AT_ONCE = 100


class SqliteJobStore:
    """See the module's text; the file is made when it is first needed.

    Args:
        path: of the database file.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)

    # -- callers --------------------------------------------------------------------------------

    def submit(self, new: NewJob, policy: JobPolicy) -> tuple[Job, bool]:
        needs = requirements_text(new.requirements)
        with self._file.transaction() as db:
            earlier = known_job(db, new.tenant, new.key, new.digest)
            if earlier is not None:
                return earlier, False
            waiting, own = db.execute(
                "SELECT count(*), ifnull(sum(tenant = ?), 0) FROM jobs WHERE state = 'queued'", (new.tenant,)
            ).fetchone()
            if own >= policy.max_waiting_per_tenant:
                raise quota_used(own)
            if waiting >= policy.max_waiting:
                raise queue_full(waiting)
            db.execute(
                "INSERT INTO jobs (id, kind, subject, tenant, spec, digest, idempotency_key, created, "
                "webhook, webhook_state, needs, phase) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.id,
                    new.kind,
                    new.subject,
                    new.tenant,
                    json_of(new.spec),
                    new.digest,
                    new.key or None,
                    time.time(),
                    new.webhook or None,
                    WebhookState.WAITING.value if new.webhook else None,
                    needs,
                    noted(db, new.kind, needs),
                ),
            )
            return job_of(dict(row_of(db, new.id))), True

    def get(self, job: str, tenant: str | None = None) -> Job:
        with self._file.transaction(write=False) as db:
            return job_of(dict(row_of(db, job, tenant)))

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
                values.append(row_of(db, after, tenant)["number"])
            rows = db.execute(
                f"SELECT * FROM jobs WHERE {' AND '.join(clauses)} ORDER BY number DESC LIMIT ?",
                (*values, limit + 1),
            ).fetchall()
        return Page(tuple(job_of(dict(row)) for row in rows[:limit]), len(rows) > limit)

    def counts(self) -> Mapping[JobState, int]:
        with self._file.transaction(write=False) as db:
            found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state.value, 0) for state in JobState}

    def active(self, kind: str, subject: str) -> Job | None:
        with self._file.transaction(write=False) as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE state IN (?, ?) AND kind = ? AND subject = ? "
                "ORDER BY state = 'running' DESC, number LIMIT 1",
                (*LIVE, kind, subject),
            ).fetchone()
        return None if row is None else job_of(dict(row))

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        with self._file.transaction() as db:
            state = JobState(row_of(db, job, tenant)["state"])
            if state in (JobState.SUCCEEDED, JobState.FAILED):
                raise job_ended(state)
            if state is JobState.QUEUED:
                end(db, job, JobState.CANCELLED, None, None)
            elif state is JobState.RUNNING:
                db.execute(
                    "UPDATE jobs SET cancelling = 1, revision = revision + 1 WHERE id = ? AND NOT cancelling",
                    (job,),
                )
            return job_of(dict(row_of(db, job)))

    # -- workers and those who start them -------------------------------------------------------

    def claim(
        self, owner: str, lease_seconds: float, concurrency: int, able: Collection[str] | None = None
    ) -> Claim | None:
        with self._file.transaction() as db:
            (running,) = db.execute("SELECT count(*) FROM jobs WHERE state = 'running'").fetchone()
            if running >= concurrency:
                return None
            job = first_for(db, able)
            if job is None:
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', phase = 'starting', owner = ?, worker = NULL, boot = ?, "
                "lease = ?, attempts = attempts + 1, started = ifnull(started, ?), revision = revision + 1 "
                "WHERE id = ?",
                (owner, boot_id(), uptime() + lease_seconds, time.time(), job),
            )
            return claim_of(dict(row_of(db, job)))

    def claimed(self, job: str, owner: str) -> Claim | None:
        with self._file.transaction(write=False) as db:
            row = owned_row(db, job, owner)
            return None if row is None else claim_of(dict(row))

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
            row = owned_row(db, job, owner)
            if row is None:
                return Orders(lost=True)
            progress, phase = min(max(progress, 0.0), 1.0), phase[:PHASE_LENGTH]
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
            if owned_row(db, job, owner) is None:
                return False
            end(db, job, state, result, error)
            return True

    def give_back(
        self, job: str, owner: str, *, blame: str = "", max_attempts: int = 0, begun: bool = True
    ) -> Job | None:
        with self._file.transaction() as db:
            row = owned_row(db, job, owner)
            return None if row is None else give_back(db, row, blame, max_attempts, begun)

    def reap(self, max_attempts: int, mine: Collection[str] = ()) -> list[Job]:
        with self._file.transaction(write=False) as db:
            if not [row for row in running_rows(db) if is_over(row, mine)]:
                return []
        with self._file.transaction() as db:
            return [
                give_back(db, row, "it was lost", max_attempts)
                for row in running_rows(db)
                if is_over(row, mine)
            ]

    def spent(self, owner: str) -> float | None:
        with self._file.transaction(write=False) as db:
            row = db.execute(
                "SELECT spent FROM jobs WHERE owner = ? AND state = 'running'", (owner,)
            ).fetchone()
        return None if row is None else float(row["spent"])

    def forget(self, keep_seconds: float, keep_jobs: int) -> list[str]:
        with self._file.transaction() as db:
            gone = db.execute(
                "DELETE FROM jobs WHERE state NOT IN (?, ?) AND (ended < ? OR number <= ("
                "SELECT number FROM jobs WHERE state NOT IN (?, ?) ORDER BY number DESC LIMIT 1 OFFSET ?)) "
                "RETURNING id",
                (*LIVE, time.time() - keep_seconds, *LIVE, keep_jobs),
            )
            return [row["id"] for row in gone.fetchall()]

    def now(self) -> float:
        return time.time()

    def unfinished(self) -> list[str]:
        with self._file.transaction(write=False) as db:
            return [row["id"] for row in db.execute("SELECT id FROM jobs WHERE state IN (?, ?)", LIVE)]

    def last_ending(self) -> int:
        with self._file.transaction(write=False) as db:
            return int(db.execute("SELECT last FROM endings").fetchone()[0])

    def ended(self, after: int) -> list[Job]:
        with self._file.transaction(write=False) as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE ending > ? ORDER BY ending LIMIT ?", (after, _ENDINGS_AT_ONCE)
            ).fetchall()
        return [job_of(dict(row)) for row in rows]

    # -- who works where ------------------------------------------------------------------------

    def announce(self, words: Collection[str], seconds: float) -> None:
        with self._file.transaction() as db:
            sqlite_queues.announce(db, words, seconds)

    def is_available(self, kind: str) -> bool:
        with self._file.transaction(write=False) as db:
            return any(kind in words for words in sqlite_queues.announced(db))

    def demand(self) -> Demand:
        with self._file.transaction(write=False) as db:
            return sqlite_queues.demand(db)

    def note(self, words: Sequence[str], note: str) -> None:
        with self._file.transaction() as db:
            sqlite_queues.note(db, words, note)

    def agree_on_folder(self, folder: str) -> bool:
        return True  # the database lies in it

    def durability_warnings(self) -> list[str]:
        return []

    # -- webhooks -------------------------------------------------------------------------------

    def claim_webhook(self, lease_seconds: float) -> Job | None:
        with self._file.transaction(write=False) as db:
            if find_due(db) is None:
                return None
        with self._file.transaction() as db:
            job = find_due(db)
            if job is None:
                return None
            claim_due(db, job, lease_seconds)
            return job_of(dict(row_of(db, job)))

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
