"""Jobs in one SQLite file, for the gateway and its workers on one machine.

The calls are those of :class:`~nonet.jobs.store_contract.JobStore`. Leases count on the clock of the
machine's uptime and name its boot, so neither a clock that is set nor a restart can make a dead worker look
alive; a lease is over at once when the process that it was given to is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from nonet.jobs.job import Beat, Claim, Job, JobError, JobState, NewJob, Orders, Page, WebhookState
from nonet.jobs.job_records import (
    Record,
    claim_of,
    job_ended,
    job_of,
    json_of,
    key_reused,
    queue_full,
    quota_used,
)
from nonet.jobs.policy import JobPolicy
from nonet.jobs.process_identity import boot_id, is_alive, uptime
from nonet.jobs.requirements import NOTE, Demand, Queue, requirements_text
from nonet.jobs.sqlite_file import SqliteFile
from nonet.jobs.sqlite_rows import GOING_ON, changed, end, give_back, noted, owned_row, row_of
from nonet.jobs.store_contract import ENDINGS_AT_ONCE, PHASE_LENGTH

State = TypeVar("State", bound=StrEnum)

DATABASE = "jobs.sqlite3"
"""Name of the database file in the state folder."""
_FARTHEST = 2 * 3600.0
"""No webhook is due later than this; one that is was written before the clock was set back."""
_LIVE = "state IN ('queued', 'running')"
_DUE = (
    f"SELECT id FROM jobs WHERE webhook_state = 'waiting' AND NOT {_LIVE} "
    "AND (webhook_due IS NULL OR webhook_due NOT BETWEEN ? AND ?) ORDER BY ifnull(webhook_due, ended) LIMIT 1"
)


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
            earlier = db.execute(
                "SELECT * FROM jobs WHERE tenant = ? AND idempotency_key = ?", (new.tenant, new.key or None)
            ).fetchone()
            if earlier is not None:
                if earlier["digest"] != new.digest:
                    raise key_reused()
                return job_of(earlier), False
            waiting = db.execute(
                "SELECT count(*) AS of_all, ifnull(sum(tenant = ?), 0) AS own FROM jobs "
                "WHERE state = 'queued'",
                (new.tenant,),
            ).fetchone()
            if waiting["own"] >= policy.max_waiting_per_tenant:
                raise quota_used(waiting["own"])
            if waiting["of_all"] >= policy.max_waiting:
                raise queue_full(waiting["of_all"])
            fields = {
                "id": new.id,
                "kind": new.kind,
                "subject": new.subject,
                "tenant": new.tenant,
                "spec": json_of(new.spec),
                "digest": new.digest,
                "idempotency_key": new.key or None,
                "created": time.time(),
                "webhook": new.webhook or None,
                "webhook_state": WebhookState.WAITING if new.webhook else None,
                "needs": needs,
                "phase": noted(db, new.kind, needs),
            }
            db.execute(
                f"INSERT INTO jobs ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})",
                tuple(fields.values()),
            )
            return job_of(row_of(db, new.id)), True

    def get(self, job: str, tenant: str | None = None) -> Job:
        with self._file.transaction(write=False) as db:
            return job_of(row_of(db, job, tenant))

    def page(
        self, tenant: str | None, *, states: Collection[JobState] = (), after: str = "", limit: int = 20
    ) -> Page:
        clauses, values = ["1"], []
        if tenant is not None:
            clauses.append("tenant = ?")
            values.append(tenant)
        if states:
            clauses.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        with self._file.transaction(write=False) as db:
            if after:
                clauses.append("number < ?")
                values.append(row_of(db, after, tenant)["number"])
            rows = db.execute(
                f"SELECT * FROM jobs WHERE {' AND '.join(clauses)} ORDER BY number DESC LIMIT ?",
                (*values, limit + 1),
            ).fetchall()
        return Page(tuple(map(job_of, rows[:limit])), len(rows) > limit)

    def counts(self) -> Mapping[JobState, int]:
        return self._counts("state", JobState)

    def active(self, kind: str, subject: str) -> Job | None:
        rows = self._file.read(
            f"SELECT * FROM jobs WHERE {_LIVE} AND kind = ? AND subject = ? "
            "ORDER BY state = 'running' DESC, number LIMIT 1",
            kind,
            subject,
        )
        return job_of(rows[0]) if rows else None

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        with self._file.transaction() as db:
            row = row_of(db, job, tenant)
            state = JobState(row["state"])
            if state in (JobState.SUCCEEDED, JobState.FAILED):
                raise job_ended(state)
            if state is JobState.QUEUED:
                row = end(db, job, JobState.CANCELLED)
            elif state is JobState.RUNNING and not row["cancelling"]:
                row = changed(db, job, "cancelling = 1")
            return job_of(row)

    # -- workers and those who start them -------------------------------------------------------

    def claim(
        self, owner: str, lease_seconds: float, concurrency: int, able: Collection[str] | None = None
    ) -> Claim | None:
        with self._file.transaction() as db:
            queues = db.execute(
                "SELECT id, kind, needs, min(number) AS first FROM jobs WHERE state = 'queued' "
                "AND (SELECT count(*) FROM jobs WHERE state = 'running') < ? "
                "GROUP BY kind, needs ORDER BY first",
                (concurrency,),
            ).fetchall()
            for queue in queues:
                if able is None or set(_words(queue)) <= set(able):
                    changes = (
                        "state = 'running', phase = 'starting', owner = ?, worker = NULL, boot = ?, "
                        "lease = ?, attempts = attempts + 1, started = ifnull(started, ?)"
                    )
                    lease = (boot_id(), uptime() + lease_seconds)
                    return claim_of(changed(db, queue["id"], changes, owner, *lease, time.time()))
        return None

    def claimed(self, job: str, owner: str) -> Claim | None:
        with self._file.transaction(write=False) as db:
            row = owned_row(db, job, owner)
            return None if row is None else claim_of(row)

    def beat(self, job: str, owner: str, lease_seconds: float, beat: Beat) -> Orders:
        with self._file.transaction() as db:
            row = owned_row(db, job, owner)
            if row is None:
                return Orders(lost=True)
            far = beat.share, beat.phase[:PHASE_LENGTH]
            partial = json_of(beat.partial)
            seen = far != (row["progress"], row["phase"]) or partial is not None
            db.execute(
                "UPDATE jobs SET worker = ?, boot = ?, lease = ?, spent = spent + ?, progress = ?, "
                "phase = ?, eta = ?, partial = ifnull(?, partial), revision = revision + ? WHERE id = ?",
                (
                    beat.worker,
                    boot_id(),
                    uptime() + lease_seconds,
                    beat.seconds,
                    *far,
                    beat.eta_seconds,
                    partial,
                    seen,
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
        error: JobError | None = None,
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
            return None if row is None else job_of(give_back(db, row, blame, max_attempts, begun))

    def reap(self, max_attempts: int, mine: Collection[str] = ()) -> list[Job]:
        running = "SELECT * FROM jobs WHERE state = 'running'"
        if not any(_is_over(row, mine) for row in self._file.read(running)):
            return []
        with self._file.transaction() as db:
            over = [row for row in db.execute(running).fetchall() if _is_over(row, mine)]
            return [job_of(give_back(db, row, "it was lost", max_attempts, True)) for row in over]

    def forget(self, keep_seconds: float, keep_jobs: int) -> list[str]:
        with self._file.transaction() as db:
            gone = db.execute(
                f"DELETE FROM jobs WHERE NOT {_LIVE} AND (ended < ? OR number <= ("
                f"SELECT number FROM jobs WHERE NOT {_LIVE} ORDER BY number DESC LIMIT 1 OFFSET ?)) "
                "RETURNING id",
                (time.time() - keep_seconds, keep_jobs),
            )
            return [row["id"] for row in gone.fetchall()]

    def now(self) -> float:
        return time.time()

    def unfinished(self) -> list[str]:
        return [row["id"] for row in self._file.read(f"SELECT id FROM jobs WHERE {_LIVE}")]

    def last_ending(self) -> int:
        return int(self._file.read("SELECT last FROM endings")[0]["last"])

    def ended(self, after: int) -> list[Job]:
        query = "SELECT * FROM jobs WHERE ending > ? ORDER BY ending LIMIT ?"
        return [job_of(row) for row in self._file.read(query, after, ENDINGS_AT_ONCE)]

    # -- who works where ------------------------------------------------------------------------

    def announce(self, words: Collection[str], seconds: float) -> None:
        # Kinds also alone, as processes of an earlier release read them.
        said = {" ".join(sorted(words)), *(word for word in words if ":" not in word)}
        boot, now = boot_id(), uptime()
        with self._file.transaction() as db:
            db.execute("DELETE FROM offers WHERE boot != ? OR until < ?", (boot, now))
            db.executemany(
                "INSERT OR REPLACE INTO offers VALUES (?, ?, ?)",
                [(each, boot, now + seconds) for each in said],
            )

    def is_available(self, kind: str) -> bool:
        return any(kind in words for words in self._announced())

    def demand(self) -> Demand:
        rows = self._file.read(
            "SELECT kind, needs, count(*) AS waiting, max(iif(phase GLOB ?, phase, '')) AS note FROM jobs "
            "WHERE state = 'queued' GROUP BY kind, needs",
            f"{NOTE}*",
        )
        queues = [Queue(_words(row), row["waiting"], row["note"]) for row in rows]
        return Demand(tuple(queues), tuple(self._announced()))

    def note(self, words: Sequence[str], note: str) -> None:
        queue = (words[0], requirements_text(words[1:]))
        phase = note[:PHASE_LENGTH]
        with self._file.transaction() as db:
            db.execute(
                "UPDATE jobs SET phase = iif(? != '', ?, iif(started IS NULL, '', ?)), "
                "revision = revision + 1 WHERE state = 'queued' AND kind = ? AND needs = ? "
                "AND iif(? != '', phase != ?, phase GLOB ?)",
                (phase, phase, GOING_ON, *queue, phase, phase, f"{NOTE}*"),
            )

    def agree_on_folder(self, folder: str) -> bool:
        return True  # the database lies in it

    def durability_warnings(self) -> list[str]:
        return []

    # -- webhooks -------------------------------------------------------------------------------

    def claim_webhook(self, lease_seconds: float) -> Job | None:
        now = time.time()
        due = (now, now + _FARTHEST)
        if not self._file.read(_DUE, *due):
            return None
        with self._file.transaction() as db:
            rows = db.execute(
                "UPDATE jobs SET webhook_attempts = webhook_attempts + 1, webhook_due = ? "
                f"WHERE id = ({_DUE}) RETURNING *",
                (now + lease_seconds, *due),
            ).fetchall()
        return job_of(rows[0]) if rows else None

    def settle_webhook(
        self, job: str, attempt: int, state: WebhookState, *, error: str = "", again_in: float = 0.0
    ) -> bool:
        with self._file.transaction() as db:
            cursor = db.execute(
                "UPDATE jobs SET webhook_state = ?, webhook_error = ?, webhook_due = ? "
                "WHERE id = ? AND webhook_state = 'waiting' AND webhook_attempts = ?",
                (state, error or None, time.time() + again_in, job, attempt),
            )
            return cursor.rowcount == 1

    def webhook_counts(self) -> Mapping[WebhookState, int]:
        return self._counts("webhook_state", WebhookState)

    def close(self) -> None:
        self._file.close()

    # -- inside ---------------------------------------------------------------------------------

    def _counts(self, column: str, states: type[State]) -> Mapping[State, int]:
        rows = self._file.read(f"SELECT {column} AS name, count(*) AS jobs FROM jobs GROUP BY {column}")
        found = {row["name"]: row["jobs"] for row in rows}
        return {state: found.get(state, 0) for state in states}

    def _announced(self) -> list[frozenset[str]]:
        """The words of each who was heard of lately."""
        query = "SELECT kind FROM offers WHERE boot = ? AND until > ?"
        return [frozenset(row["kind"].split()) for row in self._file.read(query, boot_id(), uptime())]


def _words(row: Record) -> tuple[str, ...]:
    return (row["kind"], *row["needs"].split())


def _is_over(row: Record, mine: Collection[str]) -> bool:
    """Whether the lease of a running job has ended."""
    if row["owner"] in mine:
        return False
    if row["boot"] != boot_id() or row["lease"] < uptime():
        return True
    return row["worker"] is not None and not is_alive(row["worker"])
