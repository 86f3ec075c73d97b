"""A kind of work names its function as ``module:function``, and what has to be installed for it."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nonet.jobs import (
    Assignment,
    JobFiles,
    JobPolicy,
    JobState,
    JobStore,
    NewJob,
    missing,
    new_job_id,
    run_job,
)
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.job_context import JobContext
from nonet.runtime.task import Accepted, Upload, Work


def accept(upload: Upload) -> Accepted:
    raise NotImplementedError


def toy(run: str = "toy_work:work", requires: tuple[str, ...] = (), install: str = "") -> Work:
    return Work("toy", run, accept, "Submit", requires=requires, install=install)


def ended(store: JobStore, root: Path, kinds: Mapping[str, Work]) -> Any:
    """A job of kind ``toy`` that was run to its end in this process."""
    job, _ = store.submit(NewJob(new_job_id(), "toy", "x", "ann", {"size": 3}, "d"), JobPolicy())
    files = JobFiles(root / "state")
    (files.make_folder(job.id) / "input").write_text("abc")
    assert store.claim("me", 60.0, 1) is not None
    assert run_job(store, files, kinds, root / "models", Assignment(job.id, "me")) == 0
    return store.get(job.id)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The test's process listens as it did before: a worker's ends with its job."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of the test's own that can be imported as ``toy_work``."""
    made = types.ModuleType("toy_work")
    monkeypatch.setitem(sys.modules, "toy_work", made)
    return made


def test_the_function_gets_the_job_and_what_it_returns_is_the_result(
    store: JobStore, tmp_path: Path, module: types.ModuleType
) -> None:
    def work(context: JobContext) -> Mapping[str, Any]:
        context.report(0.5, "working")
        assert (context.kind, context.tenant, context.repository) == ("toy", "ann", tmp_path / "models")
        assert context.threads >= 1
        assert context.published() is None
        return {"length": len(context.input("input").read_text()), **context.spec}

    vars(module)["work"] = work
    job = ended(store, tmp_path, {"toy": toy()})
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"length": 3, "size": 3})


def test_what_the_function_raises_is_told(store: JobStore, tmp_path: Path, module: types.ModuleType) -> None:
    def work(context: JobContext) -> Mapping[str, Any]:
        raise InvalidArgument("no such size", param="size")

    vars(module)["work"] = work
    job = ended(store, tmp_path, {"toy": toy()})
    assert (job.state, job.error.message, job.error.param) == (JobState.FAILED, "no such size", "size")


def test_a_kind_names_what_is_missing_and_is_not_imported_then(store: JobStore, tmp_path: Path) -> None:
    kind = toy("no_such_work:work", ("json", "absent_one", "absent_two"), install="fits need {missing}: ask")
    assert missing(kind) == "fits need absent_one, absent_two: ask"
    job = ended(store, tmp_path, {"toy": kind})
    assert (job.error.code, job.error.message) == ("EXTRA_MISSING", missing(kind))


@pytest.mark.parametrize(("requires", "said"), [((), ""), (("json",), ""), (("absent",), "absent must be")])
def test_a_kind_without_words_of_its_own_says_so_too(requires: tuple[str, ...], said: str) -> None:
    assert missing(toy(requires=requires)).startswith(said)
    assert bool(missing(toy(requires=requires))) == bool(said)


def test_work_that_nobody_knows_fails(store: JobStore, tmp_path: Path) -> None:
    assert ended(store, tmp_path, {}).error.code == "JOB_KIND_UNKNOWN"


@pytest.mark.parametrize("run", ["no_such_work:work", "json:no_such_function"])
def test_a_function_that_is_not_there_fails_the_job_and_not_the_worker(
    store: JobStore, tmp_path: Path, run: str
) -> None:
    job = ended(store, tmp_path, {"toy": toy(run)})
    assert job.state is JobState.FAILED
    assert "Traceback" not in job.error.message
