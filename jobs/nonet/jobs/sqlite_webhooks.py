"""The webhooks of jobs, in the rows of their jobs: which is due, and what became of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from nonet.jobs.job import JobState, WebhookState

__all__ = ["claim_due", "count_states", "find_due", "settle"]

_FARTHEST = 2 * 3600.0
"""No webhook is due later than this; one that is was written before the clock was set back."""
_ENDED = tuple(state.value for state in JobState if state.ended)


def find_due(db: sqlite3.Connection) -> str | None:
    """The job whose webhook has been due the longest."""
    now = time.time()
    row = db.execute(
        "SELECT id FROM jobs WHERE webhook_state = 'waiting' AND state IN (?, ?, ?) "
        "AND (webhook_due IS NULL OR webhook_due NOT BETWEEN ? AND ?) "
        "ORDER BY ifnull(webhook_due, ended) LIMIT 1",
        (*_ENDED, now, now + _FARTHEST),
    ).fetchone()
    return None if row is None else row["id"]


def claim_due(db: sqlite3.Connection, job: str, lease_seconds: float) -> None:
    """Count an attempt; nobody else is to make one before ``lease_seconds`` are over."""
    db.execute(
        "UPDATE jobs SET webhook_attempts = webhook_attempts + 1, webhook_due = ? WHERE id = ?",
        (time.time() + lease_seconds, job),
    )


def settle(
    db: sqlite3.Connection, job: str, attempt: int, state: WebhookState, error: str, again_in: float
) -> bool:
    """Note how an attempt went; False if there was a later one."""
    cursor = db.execute(
        "UPDATE jobs SET webhook_state = ?, webhook_error = ?, webhook_due = ? "
        "WHERE id = ? AND webhook_state = 'waiting' AND webhook_attempts = ?",
        (state.value, error or None, time.time() + again_in, job, attempt),
    )
    return cursor.rowcount == 1


def count_states(db: sqlite3.Connection) -> Mapping[WebhookState, int]:
    """Number of webhooks in each state."""
    found = dict(
        db.execute(
            "SELECT webhook_state, count(*) FROM jobs WHERE webhook_state IS NOT NULL GROUP BY webhook_state"
        ).fetchall()
    )
    return {state: found.get(state.value, 0) for state in WebhookState}
