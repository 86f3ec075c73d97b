"""The database file of the jobs: opening, the schema, transactions, and failures in our own words.

Write-ahead logging, every commit flushed, one connection per process behind a lock. A transaction that writes
takes the write lock at its start, so that two processes wait for each other instead of failing half way.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nonet.runtime.errors import InsufficientStorage, Internal, ServingError, Unavailable

logger = logging.getLogger(__name__)

_FIRST = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    tenant TEXT NOT NULL,
    spec TEXT NOT NULL,
    digest TEXT NOT NULL,
    idempotency_key TEXT,
    state TEXT NOT NULL DEFAULT 'queued',
    phase TEXT NOT NULL DEFAULT '',
    progress REAL NOT NULL DEFAULT 0,
    eta REAL,
    result TEXT,
    error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    cancelling INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    spent REAL NOT NULL DEFAULT 0,
    owner TEXT,
    worker TEXT,
    boot TEXT,
    lease REAL,
    revision INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX jobs_by_key ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_tenant ON jobs (tenant, number);
"""

_WEBHOOKS = """
ALTER TABLE jobs ADD COLUMN webhook TEXT;
ALTER TABLE jobs ADD COLUMN webhook_state TEXT;
ALTER TABLE jobs ADD COLUMN webhook_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN webhook_error TEXT;
ALTER TABLE jobs ADD COLUMN webhook_due REAL;
CREATE INDEX jobs_by_webhook ON jobs (webhook_state) WHERE webhook_state IS NOT NULL;
"""

_ENDINGS = """
ALTER TABLE jobs ADD COLUMN ending INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_by_ending ON jobs (ending);
CREATE TABLE endings (last INTEGER NOT NULL);
INSERT INTO endings VALUES (0);
CREATE TABLE offers (kind TEXT PRIMARY KEY, boot TEXT NOT NULL, until REAL NOT NULL);
"""

_NEEDS = """
ALTER TABLE jobs ADD COLUMN needs TEXT NOT NULL DEFAULT '';
"""

_PARTIAL = """
ALTER TABLE jobs ADD COLUMN partial TEXT;
"""

STEPS = (_FIRST, _WEBHOOKS, _ENDINGS, _NEEDS, _PARTIAL)
"""What makes a file of each version one of the next; version 0 is the empty file."""
SCHEMA_VERSION = len(STEPS)

_BUSY_SECONDS = 5.0
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
_PRIMARY = 0xFF


class SqliteFile:
    """One database file, opened when it is first needed and again after a failure.

    Args:
        path: of the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """A block of statements that take effect together, or not at all if it raises.

        Raises InsufficientStorage when the disk is full or read-only, Unavailable for what may pass.
        """
        with self._lock:
            try:
                connection = self._opened()
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                self._close()
                raise _translated(error) from error
            except OSError as error:
                raise InsufficientStorage("the folder of the jobs cannot be written") from error

    def read(self, query: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a query. Raises as :meth:`transaction`."""
        with self.transaction(write=False) as db:
            return db.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file; the next transaction opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = _row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _bring_up(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection


def _bring_up(connection: sqlite3.Connection) -> None:
    """Make the schema in an empty file, or add what an older one lacks.

    Raises Unavailable for a file of a later release.
    """
    if _version(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection)  # another process may have been quicker
        if found > SCHEMA_VERSION:
            raise Unavailable("the jobs were written by a later release of Nonet", code="JOBS_UNAVAILABLE")
        for step in STEPS[found:]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()["user_version"])


def _row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def _translated(error: sqlite3.Error) -> ServingError:
    """A failure of the library as one of ours; what it means for operators goes to the log."""
    number = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    logger.error("the job store failed: %s (%s)", error, getattr(error, "sqlite_errorname", "unknown"))
    if number in _FULL:
        return InsufficientStorage("the disk of the job store is full or read-only")
    if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and number:
        return Unavailable("the job store cannot be used now", code="JOBS_UNAVAILABLE", retry_after=5.0)
    return Internal("internal error in the job store; the server's log has more")
