"""Files that jobs have made: who has one, and when they go."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nonet.gateway.jobs import DATABASE, JobFiles, JobPolicy, JobState, NewJob, SqliteJobStore
from nonet.gateway.jobs.result_files import result_file, sweep_results
from nonet.runtime.errors import Conflict, NotFound, ServingError

POLICY = JobPolicy()


class Den:
    """A store, the files beside it, and jobs in them."""

    def __init__(self, root: Path) -> None:
        self.store = SqliteJobStore(root / DATABASE)
        self.files = JobFiles(root)
        self.root = root

    def job(self, name: str, state: JobState = JobState.SUCCEEDED, *, size: int | None = 10) -> str:
        """A job in ``state`` that has made a file of ``size`` bytes."""
        self.store.submit(NewJob(name, "toy", "subject", "", {}, "digest"), POLICY)
        if size is not None:
            part = self.files.make_folder(name) / "part"
            part.write_bytes(b"x" * size)
            self.files.publish(name, part)
            assert not part.exists()
        result = {"n": 1} if size is None else {"file": "f", "bytes": size}
        if state is not JobState.QUEUED:
            assert self.store.claim(f"owner of {name}", 60.0, 100) is not None
        if state.ended:
            assert self.store.finish(name, f"owner of {name}", state, result=result)
        return name

    def kept(self) -> set[str]:
        return {name for name, _ in self.files.results()}

    def sweep(self, **limits: float) -> None:
        sweep_results(self.store, self.files, dataclasses.replace(POLICY, **limits))


@pytest.fixture
def den(tmp_path: Path) -> Iterator[Den]:
    made = Den(tmp_path)
    yield made
    made.store.close()


def refusal(den: Den, job: str) -> ServingError:
    with pytest.raises(ServingError) as refused:
        result_file(den.store.get(job), den.files)
    return refused.value


def test_a_job_that_has_succeeded_has_its_file(den: Den) -> None:
    found = result_file(den.store.get(den.job("a")), den.files)
    assert (found.size, found.path.read_bytes()) == (10, b"x" * 10)


@pytest.mark.parametrize(
    ("state", "size", "kind", "code"),
    [
        (JobState.QUEUED, None, Conflict, "JOB_NOT_ENDED"),
        (JobState.RUNNING, None, Conflict, "JOB_NOT_ENDED"),
        (JobState.FAILED, None, Conflict, "JOB_NOT_SUCCEEDED"),
        (JobState.CANCELLED, None, Conflict, "JOB_NOT_SUCCEEDED"),
        (JobState.SUCCEEDED, None, NotFound, "RESULT_NOT_FOUND"),
    ],
)
def test_a_job_without_a_file_says_why(den: Den, state, size, kind, code) -> None:
    refused = refusal(den, den.job("a", state, size=size))
    assert isinstance(refused, kind)
    assert refused.code == code


def test_files_of_jobs_that_did_not_succeed_or_are_forgotten_go(den: Den) -> None:
    for state in reversed(JobState):  # a claim takes the oldest that waits
        den.job(state.value, state)
    den.sweep()
    assert den.kept() == {"succeeded", "running", "queued"}
    (den.root / "results" / "job_of_nobody").write_bytes(b"x")
    time.sleep(0.01)
    den.store.forget(0.001, 1000)
    den.sweep()
    assert den.kept() == {"running", "queued"}


def test_old_files_go_before_their_jobs(den: Den) -> None:
    den.job("a")
    den.sweep(keep_result_seconds=3600.0)
    assert den.kept() == {"a"}
    time.sleep(0.01)
    den.sweep(keep_result_seconds=0.001)
    assert den.kept() == set()
    assert den.store.get("a").state is JobState.SUCCEEDED


def test_when_all_take_too_much_the_oldest_go_and_the_newest_stays(den: Den) -> None:
    for name in ("a", "b", "c"):
        den.job(name, size=40)
        time.sleep(0.01)
    den.sweep(keep_result_bytes=100)
    assert den.kept() == {"b", "c"}
    den.sweep(keep_result_bytes=1)
    assert den.kept() == {"c"}


async def test_a_file_that_goes_while_it_is_read_is_read_to_its_end(den: Den) -> None:
    found = result_file(den.store.get(den.job("a")), den.files)
    pieces = found.pieces(4)
    first = await anext(pieces)
    den.files.remove_result("a")
    assert [first, *[piece async for piece in pieces]] == [b"xxxx", b"xxxx", b"xx"]
    with pytest.raises(NotFound) as refused:
        await anext(found.pieces(4))
    assert refused.value.code == "RESULT_EXPIRED"
