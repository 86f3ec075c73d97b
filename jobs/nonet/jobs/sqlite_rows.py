"""Jobs as rows of the SQLite file: reading them, and the changes that several calls of the store share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping
from typing import Any

from nonet.jobs.job import Job, JobState
from nonet.jobs.job_records import job_of, json_of, key_reused, unknown_job
from nonet.jobs.process_identity import boot_id, is_alive, uptime
from nonet.jobs.requirements import NOTE

__all__ = [
    "GOING_ON",
    "LIVE",
    "end",
    "give_back",
    "is_over",
    "known_job",
    "noted",
    "owned_row",
    "row_of",
    "running_rows",
]

LIVE = (JobState.QUEUED.value, JobState.RUNNING.value)
GOING_ON = "waiting to go on"
"""The phase of a job that ran before and waits."""
_RELEASED = "owner = NULL, worker = NULL, boot = NULL, lease = NULL, eta = NULL, revision = revision + 1"


def row_of(db: sqlite3.Connection, job: str, tenant: str | None = None) -> sqlite3.Row:
    """A job's row. Raises NotFound."""
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND (? IS NULL OR tenant = ?)", (job, tenant, tenant)
    ).fetchone()
    if row is None:
        raise unknown_job()
    return row


def owned_row(db: sqlite3.Connection, job: str, owner: str) -> sqlite3.Row | None:
    """The row of a job that runs and is the owner's."""
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND owner = ? AND state = 'running'", (job, owner)
    ).fetchone()
    return row


def known_job(db: sqlite3.Connection, tenant: str, key: str, digest: str) -> Job | None:
    """The job that an idempotency key stands for. Raises Conflict if that was another request."""
    if not key:
        return None
    row = db.execute("SELECT * FROM jobs WHERE tenant = ? AND idempotency_key = ?", (tenant, key)).fetchone()
    if row is None:
        return None
    if row["digest"] != digest:
        raise key_reused()
    return job_of(dict(row))


def running_rows(db: sqlite3.Connection) -> list[sqlite3.Row]:
    """The rows of the jobs that run."""
    return db.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()


def is_over(row: sqlite3.Row, mine: Collection[str]) -> bool:
    """Whether the lease of a running job has ended."""
    if row["owner"] in mine:
        return False
    if row["boot"] != boot_id() or row["lease"] < uptime():
        return True
    return row["worker"] is not None and not is_alive(row["worker"])


def give_back(
    db: sqlite3.Connection, row: sqlite3.Row, blame: str, max_attempts: int, begun: bool = True
) -> Job:
    """Let go of a running job: see :meth:`JobStore.give_back`."""
    job, deaths = row["id"], row["deaths"] + bool(blame)
    if row["cancelling"]:
        end(db, job, JobState.CANCELLED, None, None)
    elif blame and deaths >= max_attempts:
        often = f"{deaths} times, the last time" if deaths > 1 else "once,"
        message = f"the process of the job ended {often} because {blame}; it is not tried again"
        error = {"message": message, "type": "server_error", "param": None, "code": "WORKER_CRASHED"}
        db.execute("UPDATE jobs SET deaths = ? WHERE id = ?", (deaths, job))
        end(db, job, JobState.FAILED, None, error)
    else:
        db.execute(
            f"UPDATE jobs SET state = 'queued', phase = ?, deaths = ?, attempts = attempts - ?, {_RELEASED} "
            "WHERE id = ?",
            (noted(db, row["kind"], row["needs"]) or GOING_ON, deaths, int(not begun), job),
        )
    return job_of(dict(row_of(db, job)))


def noted(db: sqlite3.Connection, kind: str, needs: str) -> str:
    """The note of the jobs that wait for the same words, "" if there is none."""
    (note,) = db.execute(
        "SELECT max(phase) FROM jobs WHERE state = 'queued' AND kind = ? AND needs = ? AND phase GLOB ?",
        (kind, needs, f"{NOTE}*"),
    ).fetchone()
    return note or ""


def end(
    db: sqlite3.Connection,
    job: str,
    state: JobState,
    result: Mapping[str, Any] | None,
    error: Mapping[str, Any] | None,
) -> None:
    """End a job."""
    db.execute("UPDATE endings SET last = last + 1")
    db.execute(
        f"UPDATE jobs SET state = ?, result = ?, error = ?, ended = ?, cancelling = 0, "
        f"progress = iif(? = 'succeeded', 1.0, progress), phase = ?, ending = (SELECT last FROM endings), "
        f"{_RELEASED} WHERE id = ?",
        (state.value, json_of(result), json_of(error), time.time(), state.value, state.value, job),
    )
