"""What only the store in SQLite promises: boots, and files that are not as they should be."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from nonet.jobs import DATABASE, JobPolicy, NewJob, SqliteJobStore, new_job_id
from nonet.jobs.sqlite_file import STEPS
from nonet.runtime.errors import Unavailable


def test_a_lease_does_not_outlive_a_boot(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path / DATABASE)
    job, _ = store.submit(NewJob(new_job_id(), "toy", "x", "ann", {}, "d"), JobPolicy())
    store.claim("me", 60, 9)
    with sqlite3.connect(tmp_path / DATABASE) as file:
        file.execute("UPDATE jobs SET boot = 'another boot', lease = 1e12")
    file.close()
    assert [each.id for each in store.reap(3)] == [job.id]
    store.close()


def test_a_file_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    store = SqliteJobStore(tmp_path / DATABASE)
    with pytest.raises(Unavailable, match="later release"):
        store.counts()
    store.close()


def test_jobs_that_an_earlier_release_has_queued_are_taken(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as file:
        for step in STEPS[:3]:
            file.executescript(step)
        file.execute("PRAGMA user_version = 3")
        file.execute(
            "INSERT INTO jobs (id, kind, subject, tenant, spec, digest, created) "
            "VALUES ('job_1', 'toy', 'x', 'ann', '{}', 'd', 1)"
        )
    file.close()
    store = SqliteJobStore(tmp_path / DATABASE)
    assert [(each.words, each.waiting) for each in store.demand().queues] == [(("toy",), 1)]
    assert store.claim("you", 60, 9, ["other"]) is None
    found = store.claim("me", 60, 9, ["toy"])
    assert found is not None
    assert found.job.id == "job_1"
    store.close()


def test_a_damaged_file_is_unavailable_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database at all " * 1000)
    store = SqliteJobStore(tmp_path / DATABASE)
    for _ in range(2):
        with pytest.raises(Unavailable):
            store.counts()
    (tmp_path / DATABASE).unlink()
    assert sum(store.counts().values()) == 0
    store.close()
