"""Queues and announcements in the SQLite file: jobs of the same words that wait, and who can take them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from nonet.jobs.process_identity import boot_id, uptime
from nonet.jobs.requirements import NOTE, Demand, Queue, requirements_text
from nonet.jobs.sqlite_rows import GOING_ON
from nonet.jobs.store_contract import PHASE_LENGTH

__all__ = ["announce", "announced", "demand", "first_for", "note"]


def first_for(db: sqlite3.Connection, able: Collection[str] | None) -> str | None:
    """The oldest waiting job that requires no more than ``able``, None for any."""
    rows = db.execute(
        "SELECT id, kind, needs, min(number) AS first FROM jobs WHERE state = 'queued' "
        "GROUP BY kind, needs ORDER BY first"
    )
    for row in rows.fetchall():
        if able is None or set(_words(row)) <= set(able):
            return str(row["id"])
    return None


def announce(db: sqlite3.Connection, words: Collection[str], seconds: float) -> None:
    """See :meth:`JobStore.offer`."""
    db.execute("DELETE FROM offers WHERE boot != ? OR until < ?", (boot_id(), uptime()))
    # Kinds also alone, as processes of an earlier release read them.
    said = {" ".join(sorted(words)), *(word for word in words if ":" not in word)}
    until = uptime() + seconds
    db.executemany(
        "INSERT OR REPLACE INTO offers VALUES (?, ?, ?)", [(each, boot_id(), until) for each in said]
    )


def announced(db: sqlite3.Connection) -> list[frozenset[str]]:
    """The words of each who was heard of lately."""
    rows = db.execute("SELECT kind FROM offers WHERE boot = ? AND until > ?", (boot_id(), uptime()))
    return [frozenset(row["kind"].split()) for row in rows.fetchall()]


def demand(db: sqlite3.Connection) -> Demand:
    """See :meth:`JobStore.demand`."""
    rows = db.execute(
        "SELECT kind, needs, count(*) AS waiting, max(iif(phase GLOB ?, phase, '')) AS note FROM jobs "
        "WHERE state = 'queued' GROUP BY kind, needs",
        (f"{NOTE}*",),
    )
    queues = [Queue(_words(row), row["waiting"], row["note"]) for row in rows.fetchall()]
    return Demand(tuple(queues), tuple(announced(db)))


def note(db: sqlite3.Connection, words: Sequence[str], text: str) -> None:
    """See :meth:`JobStore.note`."""
    where = "state = 'queued' AND kind = ? AND needs = ?"
    queue = (words[0], requirements_text(words[1:]))
    if text:
        phase = text[:PHASE_LENGTH]
        db.execute(
            f"UPDATE jobs SET phase = ?, revision = revision + 1 WHERE {where} AND phase != ?",
            (phase, *queue, phase),
        )
    else:
        db.execute(
            "UPDATE jobs SET phase = iif(started IS NULL, '', ?), revision = revision + 1 "
            f"WHERE {where} AND phase GLOB ?",
            (GOING_ON, *queue, f"{NOTE}*"),
        )


def _words(row: sqlite3.Row) -> tuple[str, ...]:
    return (row["kind"], *row["needs"].split())
