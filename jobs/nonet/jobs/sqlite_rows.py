"""Jobs as rows of the SQLite file: reading them, and the changes that several calls of the store share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from nonet.jobs.job import JobError, JobState
from nonet.jobs.job_records import Record, json_of, unknown_job
from nonet.jobs.requirements import NOTE

GOING_ON = "waiting to go on"
"""The phase of a job that ran before and waits."""
_RELEASED = "owner = NULL, worker = NULL, boot = NULL, lease = NULL, eta = NULL, partial = NULL"


def row_of(db: sqlite3.Connection, job: str, tenant: str | None = None) -> Record:
    """A job's row. Raises NotFound."""
    row: Record | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND (? IS NULL OR tenant = ?)", (job, tenant, tenant)
    ).fetchone()
    if row is None:
        raise unknown_job()
    return row


def owned_row(db: sqlite3.Connection, job: str, owner: str) -> Record | None:
    """The row of a job that runs and is the owner's."""
    row: Record | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND owner = ? AND state = 'running'", (job, owner)
    ).fetchone()
    return row


def changed(db: sqlite3.Connection, job: str, changes: str, *values: object) -> Record:
    """The row of a job after ``changes``, assignments in SQL."""
    row: Record
    (row,) = db.execute(
        f"UPDATE jobs SET {changes}, revision = revision + 1 WHERE id = ? RETURNING *", (*values, job)
    ).fetchall()
    return row


def give_back(db: sqlite3.Connection, row: Record, blame: str, max_attempts: int, begun: bool) -> Record:
    """Let go of a running job: see :meth:`JobStore.give_back`."""
    job, deaths = row["id"], row["deaths"] + bool(blame)
    if row["cancelling"]:
        return end(db, job, JobState.CANCELLED)
    if blame and deaths >= max_attempts:
        often = f"{deaths} times, the last time" if deaths > 1 else "once,"
        message = f"the process of the job ended {often} because {blame}; it is not tried again"
        error = JobError(message, "server_error", None, "WORKER_CRASHED")
        return end(db, job, JobState.FAILED, error=error)
    phase = noted(db, row["kind"], row["needs"]) or GOING_ON
    changes = f"state = 'queued', phase = ?, deaths = ?, attempts = attempts - ?, {_RELEASED}"
    return changed(db, job, changes, phase, deaths, int(not begun))


def noted(db: sqlite3.Connection, kind: str, needs: str) -> str:
    """The note of the jobs that wait for the same words, "" if there is none."""
    row = db.execute(
        "SELECT max(phase) AS note FROM jobs WHERE state = 'queued' AND kind = ? AND needs = ? "
        "AND phase GLOB ?",
        (kind, needs, f"{NOTE}*"),
    ).fetchone()
    return row["note"] or ""


def end(
    db: sqlite3.Connection,
    job: str,
    state: JobState,
    result: Mapping[str, Any] | None = None,
    error: JobError | None = None,
) -> Record:
    """End a job."""
    db.execute("UPDATE endings SET last = last + 1")
    changes = (
        "state = ?, phase = ?, result = ?, error = ?, ended = ?, cancelling = 0, "
        f"progress = iif(? = 'succeeded', 1.0, progress), ending = (SELECT last FROM endings), {_RELEASED}"
    )
    return changed(db, job, changes, state, state, json_of(result), json_of(error), time.time(), state)
