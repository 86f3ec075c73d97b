"""The job ``raw.develop`` as its worker runs it: published once, and by the right network only."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nonet.jobs import DATABASE, Assignment, JobFiles, JobPolicy, NewJob, SqliteJobStore
from nonet.jobs.worker import RunningJob, _Heartbeat
from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import Conflict, Internal, ServingError, Unavailable
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import Tensor
from nonet.services import raw_image
from nonet.services.raw_image.job import develop_capture
from nonet.services.raw_image.job_spec import CAPTURE, KIND, DevelopSpec
from nonet.services.raw_image.task import DEVELOP
from tests.support import handmade_captures

MOSAIC = handmade_captures.npy(handmade_captures.capture())
NAME = "stand_in"


@dataclasses.dataclass
class Bench:
    """A repository with one network, what the gateway knows of it, and a job on it."""

    root: Path
    store: SqliteJobStore
    files: JobFiles
    spec: DevelopSpec
    answer: bytes

    def task(self, spec: DevelopSpec | None = None) -> RunningJob:
        """A job that this process has claimed."""
        number = len(list(self.root.parent.glob("work/*")))
        job = f"job_{number}"
        (self.files.make_folder(job) / CAPTURE).write_bytes(MOSAIC)
        fields = dataclasses.asdict(spec or self.spec)
        self.store.submit(NewJob(job, KIND, "a capture", "", fields, job), JobPolicy())
        claim = self.store.claim(f"owner of {job}", 60.0, 100)
        assert claim is not None
        return RunningJob(
            claim, self.files, _Heartbeat(self.store, Assignment(job, f"owner of {job}"), 0.0), self.root
        )

    def picture(self, task: RunningJob) -> Path:
        return self.files.result(task.job)

    def develop(self, task: RunningJob) -> dict[str, object]:
        return dict(develop_capture(task))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root = tmp_path / "models"
    root.mkdir()
    handmade_captures.add_restorer(root, NAME)
    catalog = Catalog()
    manager = RepositoryManager(
        root, catalog, options=BackendOptions(concurrency=1), derivations=[raw_image.derive]
    )
    manager.load_all()
    parameters = {"cfa": "RGGB", "output": "png16"}
    with catalog.lease(f"develop.{NAME}") as lease:
        details = lease.info.details
        request = InferRequest(
            lease.info.name, inputs=(Tensor.of_bytes("raw", [MOSAIC]),), parameters=parameters
        )
        (answer,) = lease.servable.execute([request])
    assert isinstance(answer, InferResponse)
    manager.unload(NAME)
    facts = [str(details[name]) for name in ("content", "engine", "precision")]
    spec = DevelopSpec(NAME, "1", *facts, parameters=parameters, pixels=1_000_000)
    store = SqliteJobStore(tmp_path / DATABASE)
    yield Bench(root, store, JobFiles(tmp_path), spec, answer.output("picture").data[0])
    store.close()


def test_workers_need_no_more_than_what_serves_for_it(bench: Bench) -> None:
    assert DEVELOP.work is not None
    assert DEVELOP.work.requires == ()


def test_the_picture_is_the_services_and_lies_in_its_place(bench: Bench) -> None:
    task = bench.task()
    result = bench.develop(task)
    assert bench.picture(task).read_bytes() == bench.answer
    assert result["file"] == f"/v1/jobs/{task.job}/result"
    assert result["sha256"] == hashlib.sha256(bench.answer).hexdigest()
    assert (result["model"], result["version"], result["bytes"]) == (NAME, "1", len(bench.answer))


def test_what_was_published_before_the_worker_died_is_not_made_again(bench: Bench) -> None:
    """Nor is what had succeeded when the store went back: the folder of the job is gone then."""
    task = bench.task()
    first = bench.develop(task)
    stamp = bench.picture(task).stat().st_mtime_ns
    bench.files.remove(task.job)
    shutil.rmtree(bench.root / NAME)
    assert bench.develop(task) == first
    assert bench.picture(task).stat().st_mtime_ns == stamp


def test_a_job_whose_input_is_not_there_says_so(bench: Bench) -> None:
    task = bench.task()
    bench.files.remove(task.job)
    with pytest.raises(Internal, match=r"jobs\.path") as refused:
        bench.develop(task)
    assert refused.value.code == "JOB_FILES_MISSING"


def test_a_worker_that_died_before_it_published_does_it_again(bench: Bench) -> None:
    task = bench.task()
    first = bench.develop(task)
    bench.picture(task).unlink()
    assert bench.develop(task) == first
    assert bench.picture(task).read_bytes() == bench.answer


@pytest.mark.parametrize(
    ("damage", "kind", "code"),
    [
        ("another content", Conflict, "MODEL_CHANGED"),
        ("no version", Conflict, "MODEL_CHANGED"),
        ("no model", Conflict, "MODEL_CHANGED"),
        ("a wrong hash", Unavailable, "MODEL_REFUSED"),
    ],
)
def test_no_other_network_develops(bench: Bench, damage: str, kind: type[ServingError], code: str) -> None:
    spec = bench.spec
    if damage == "another content":
        spec = dataclasses.replace(spec, content="0" * 64)
    elif damage == "no version":
        spec = dataclasses.replace(spec, version="7")
    elif damage == "no model":
        shutil.rmtree(bench.root / NAME)
    else:
        path = bench.root / NAME / "1" / "model.onnx"
        path.write_bytes(path.read_bytes() + b"\0")
    task = bench.task(spec)
    with pytest.raises(kind) as refused:
        bench.develop(task)
    assert refused.value.code == code
    assert not bench.picture(task).exists()
