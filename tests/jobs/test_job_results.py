"""Files that jobs have made: who has one, and when they go; all with both stores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nonet.jobs import JobFiles, JobPolicy, JobState, JobStore, NewJob, StoreAddress, new_job_id
from nonet.jobs.result_files import result_file, sweep_results
from nonet.runtime.errors import Conflict, NotFound, ServingError
from tests.support.redis_server import RedisServer

POLICY = JobPolicy()


class JobFolder:
    """A store, the files beside it, and jobs in them."""

    def __init__(self, root: Path, store: JobStore) -> None:
        self.store = store
        self.files = JobFiles(root)
        self.root = root

    def job(self, name: str, state: JobState = JobState.SUCCEEDED, *, size: int | None = 10) -> str:
        """A job in ``state`` that has made a file of ``size`` bytes."""
        self.store.submit(NewJob(name, "toy", "subject", "", {}, "digest"), POLICY)
        if size is not None:
            folder = self.files.make_folder(name)
            (folder / "part").write_bytes(b"x" * size)
            (folder / "facts").write_text('{"n": 1}')
            self.files.publish(name, folder / "part", folder / "facts")
            assert not any(folder.iterdir())
        result = {"n": 1} if size is None else {"file": "f", "bytes": size}
        if state is not JobState.QUEUED:
            assert self.store.claim(f"owner of {name}", 60.0, 100) is not None
        if state.ended:
            assert self.store.finish(name, f"owner of {name}", state, result=result)
        return name

    def kept(self) -> set[str]:
        """Jobs whose files are there, each with its facts."""
        names = {found.job for found in self.files.results()}
        for name in names:
            assert self.files.published(name) == {"n": 1}
        assert len(list((self.root / "results").glob("*"))) == 2 * len(names)
        return names

    def sweep(self, **limits: float) -> None:
        sweep_results(self.store, self.files, POLICY.model_copy(update=limits))


@pytest.fixture
def jobs(tmp_path: Path, make_store: Callable[[], JobStore]) -> JobFolder:
    return JobFolder(tmp_path, make_store())


def refusal(jobs: JobFolder, job: str) -> ServingError:
    with pytest.raises(ServingError) as refused:
        result_file(jobs.store.get(job), jobs.files)
    return refused.value


def test_a_job_that_has_succeeded_has_its_file(jobs: JobFolder) -> None:
    found = result_file(jobs.store.get(jobs.job("a")), jobs.files)
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
def test_a_job_without_a_file_says_why(jobs: JobFolder, state, size, kind, code) -> None:
    refused = refusal(jobs, jobs.job("a", state, size=size))
    assert isinstance(refused, kind)
    assert refused.code == code


def test_files_of_jobs_that_did_not_succeed_go(jobs: JobFolder) -> None:
    for state in reversed(JobState):  # a claim takes the oldest that waits
        jobs.job(state.value, state)
    jobs.sweep()
    assert jobs.kept() == {"succeeded", "running", "queued"}


def test_files_of_jobs_that_the_store_does_not_know_stay_their_time(jobs: JobFolder) -> None:
    """Another store's jobs may have made them: nobody removes them before they would have gone anyway."""
    for name in ("old", "young"):
        folder = jobs.files.make_folder(name)
        for file in ("part", "facts"):
            (folder / file).write_text('{"n": 1}')
            if name == "old":
                os.utime(folder / file, (jobs.store.now() - 7200.0,) * 2)
        jobs.files.publish(name, folder / "part", folder / "facts")
    jobs.sweep(keep_result_seconds=10_000.0, keep_result_bytes=1)
    assert jobs.kept() == {"old", "young"}
    jobs.sweep(keep_result_seconds=3600.0)
    assert jobs.kept() == {"young"}


def test_what_a_publish_that_was_cut_short_has_left_goes_too(jobs: JobFolder) -> None:
    (jobs.root / "results").mkdir()
    (jobs.root / "results" / "a.json").write_text("{}")
    assert jobs.files.published("a") is None
    jobs.sweep(keep_result_seconds=3600.0)
    assert [found.job for found in jobs.files.results()] == ["a"]
    time.sleep(0.01)
    jobs.sweep(keep_result_seconds=0.001)
    assert jobs.kept() == set()


def test_a_machine_whose_clock_is_ahead_removes_nothing(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do uploads and folders that are young on the clock of the store."""
    store = StoreAddress(redis_server.url, new_job_id(), 30.0).open(tmp_path)
    jobs = JobFolder(tmp_path, store)
    jobs.job("a")
    with jobs.files.receiving() as upload:
        pass
    folder = jobs.files.make_folder("b")
    upload.write_bytes(b"x")  # a process that died while it came has left it
    ahead = time.time() + 8 * 86400.0
    monkeypatch.setattr(time, "time", lambda: ahead)
    jobs.sweep()
    jobs.files.sweep(store.unfinished(), store.now())
    assert jobs.kept() == {"a"}
    assert upload.exists()
    assert folder.exists()
    jobs.files.sweep((), ahead)
    assert not upload.exists()
    assert not folder.exists()
    store.close()


def test_old_files_go_before_their_jobs(jobs: JobFolder) -> None:
    jobs.job("a")
    jobs.sweep(keep_result_seconds=3600.0)
    assert jobs.kept() == {"a"}
    time.sleep(0.01)
    jobs.sweep(keep_result_seconds=0.001)
    assert jobs.kept() == set()
    assert jobs.store.get("a").state is JobState.SUCCEEDED


def test_when_all_take_too_much_the_oldest_go_and_the_newest_stays(jobs: JobFolder) -> None:
    for name in ("a", "b", "c"):
        jobs.job(name, size=40)
        time.sleep(0.01)
    jobs.sweep(keep_result_bytes=100)
    assert jobs.kept() == {"b", "c"}
    jobs.sweep(keep_result_bytes=1)
    assert jobs.kept() == {"c"}


async def test_a_file_that_goes_while_it_is_read_is_read_to_its_end(jobs: JobFolder) -> None:
    found = result_file(jobs.store.get(jobs.job("a")), jobs.files)
    pieces = found.pieces(4)
    first = await anext(pieces)
    jobs.files.remove_result("a")
    assert [first, *[piece async for piece in pieces]] == [b"xxxx", b"xxxx", b"xx"]
    with pytest.raises(NotFound) as refused:
        await anext(found.pieces(4))
    assert refused.value.code == "RESULT_EXPIRED"
    assert "new Idempotency-Key" in refused.value.message  # under the same one is the job without its file
