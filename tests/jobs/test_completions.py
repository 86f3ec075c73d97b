"""When callers of a process see that a job has succeeded, and who removes what is kept no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nonet.jobs import (
    Job,
    JobFiles,
    JobPolicy,
    Jobs,
    JobState,
    JobStore,
    NewJob,
    PageQuery,
    WorkerCommand,
)
from nonet.runtime.errors import NotFound

LOADED, FILE = "loaded", "file"
POLICY = JobPolicy(concurrency=0)

Begin = Callable[..., Jobs]


@pytest.fixture
async def begin(make_store: Callable[[], JobStore], tmp_path: Path) -> AsyncIterator[Begin]:
    """The jobs of one more process, which runs none itself."""
    made: list[Jobs] = []

    def begun(policy: JobPolicy = POLICY, *, works_only: bool = False) -> Jobs:
        command = WorkerCommand(("false",), tmp_path, tmp_path / "models")
        made.append(Jobs(make_store(), JobFiles(tmp_path), command, policy, works_only=works_only))
        return made[-1]

    yield begun
    for jobs in made:
        await jobs.stop(1.0)
        jobs.close()


def new(kind: str, name: str) -> NewJob:
    return NewJob(name, kind, "subject", "", {}, kind, f"key-of-{kind}")


def succeed(store: JobStore, files: JobFiles, kind: str) -> str:
    """A job that another process has done, with its file."""
    name = f"job_{kind}"
    store.submit(new(kind, name), POLICY)
    assert store.claim("another", 60.0, 9) is not None
    folder = files.make_folder(name)
    (folder / "part").write_bytes(b"x")
    (folder / "facts").write_text("{}")
    files.publish(name, folder / "part", folder / "facts")
    files.remove(name)
    assert store.finish(name, "another", JobState.SUCCEEDED, result={"file": "f", "bytes": 1})
    return name


async def reaches(jobs: Jobs, job: str, state: JobState) -> None:
    async with asyncio.timeout(30):
        while (await jobs.get(job, "")).state is not state:
            await asyncio.sleep(0.01)


async def test_only_what_has_to_be_loaded_is_shown_later(
    begin: Begin, make_store: Callable[[], JobStore]
) -> None:
    jobs, loaded, may_load = begin(), [], asyncio.Event()

    async def load(job: Job) -> None:
        await may_load.wait()
        loaded.append(job.id)

    await jobs.open({LOADED: load})  # and not started: it has not looked since
    name, file = (succeed(make_store(), jobs.files, kind) for kind in (LOADED, FILE))
    shown = {job.id: job.state for job in (await jobs.page("", PageQuery())).jobs}
    assert shown == {name: JobState.RUNNING, file: JobState.SUCCEEDED}
    assert (await jobs.get(file, "")).state is JobState.SUCCEEDED
    again, fresh = await jobs.submit(new(LOADED, "job_again"))
    assert (again.id, again.state, again.result, fresh) == (name, JobState.RUNNING, None, False)
    again, fresh = await jobs.submit(new(FILE, "job_again"))
    assert (again.id, again.state, fresh) == (file, JobState.SUCCEEDED, False)
    for each in (name, file):  # what lies in the folder needs no loading
        assert [piece async for piece in (await jobs.result(each, "")).pieces(9)] == [b"x"]
    await jobs.start()
    await jobs.get(name, "")
    assert (await jobs.get(name, "")).phase == "loading the result"
    may_load.set()
    await reaches(jobs, name, JobState.SUCCEEDED)
    assert loaded == [name]


async def test_a_process_that_only_works_removes_nothing(
    begin: Begin, make_store: Callable[[], JobStore]
) -> None:
    hasty = JobPolicy(concurrency=0, keep_seconds=0.001, keep_result_seconds=0.001)
    works = begin(hasty, works_only=True)
    job = succeed(make_store(), works.files, FILE)
    await works.open()
    await works.start()
    async with asyncio.timeout(30):
        while not works.by_state()["succeeded"]:  # it has looked
            await asyncio.sleep(0.01)
    assert works.files.result(job).exists()
    await reaches(works, job, JobState.SUCCEEDED)
    gateway = begin(hasty)
    await gateway.open()
    await gateway.start()
    async with asyncio.timeout(30):
        while works.files.results():  # with their jobs, at once
            await asyncio.sleep(0.01)
    with pytest.raises(NotFound):
        await gateway.get(job, "")


async def test_a_gateway_tidies_up_after_those_that_only_work(
    begin: Begin, make_store: Callable[[], JobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nonet.jobs.supervisor._TIDY_SOON", 0.0)
    gateway = begin(JobPolicy(concurrency=0, keep_result_bytes=1))
    await gateway.open()
    await gateway.start()
    first = succeed(make_store(), gateway.files, "first")
    async with asyncio.timeout(30):
        while not gateway.by_state()["succeeded"]:  # it has looked, and tidied up as at every start
            await asyncio.sleep(0.01)
    assert gateway.files.result(first).exists()
    second = succeed(make_store(), gateway.files, "second")
    async with asyncio.timeout(30):
        while gateway.files.result(first).exists():
            await asyncio.sleep(0.01)
    assert [found.job for found in gateway.files.results()] == [second]
