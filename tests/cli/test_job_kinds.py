"""The work of jobs, run as a worker runs it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nonet.cli.job_kinds import engines, kinds
from nonet.gateway.tasks.floor_buildings import FIT
from nonet.gateway.tasks.raw_development import engine_words
from nonet.jobs import Task
from nonet.runtime.backends import installed_backends, registry
from nonet.runtime.errors import PermissionDenied
from nonet.runtime.scans import Scans
from tests.support import toy_worker


def task_of(tenant: str, folder: Path) -> Task:
    """The job of a tenant whose scans cannot be read: a fit that gets so far says so."""
    spec: dict[str, Any] = {"building": "home"}
    reports: list[str] = []
    task = SimpleNamespace(
        job="job_1",
        tenant=tenant,
        spec=spec,
        input=lambda name: folder / name,
        report=lambda _, phase: reports.append(phase),
    )
    return cast("Task", task)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_fit_of_the_building_of_another_tenant_ends_before_it_begins(tmp_path: Path, damaged: bool) -> None:
    pytest.importorskip("torch")
    scans = Scans.build([("a", {"m1": -50.0})])
    for _ in range(2):
        toy_worker.publish(tmp_path / "models", "home", scans, {}, 0, "job", "ann")
    if damaged:
        (tmp_path / "models" / "floors_home" / "2" / "manifest.json").write_text("{")
    fit = kinds(tmp_path / "models")[FIT].run
    with pytest.raises(PermissionDenied) as refused:
        fit(task_of("ben", tmp_path))
    assert refused.value.code == "BUILDING_NOT_YOURS"
    for tenant in ("ann", ""):
        with pytest.raises(FileNotFoundError):
            fit(task_of(tenant, tmp_path))


def test_a_worker_has_the_words_of_what_it_can_compute_with_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A capture needs the words of its gateway's engine; the one that is always there needs none."""
    has = {word for word, missing in engines().items() if not missing}
    wanted = [
        engine_words(engine.name, precision)
        for engine in installed_backends()
        for precision in engine.precisions()
    ]
    assert has == {word for words in wanted for word in words}
    assert engine_words("onnxruntime", "fp32") == ()
    assert engine_words("openvino", "fp32") == ("engine:openvino",)
    assert engine_words("openvino", "bf16") == ("engine:openvino:bf16",)
    registry.backend.cache_clear()
    monkeypatch.setattr(registry.openvino, "installed", lambda: False)
    assert "pip install 'nonet[openvino]'" in engines()["engine:openvino"]
    monkeypatch.setattr(registry.openvino, "installed", lambda: True)

    def broken() -> None:
        raise OSError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(registry.openvino, "OpenVinoBackend", broken)
    assert engines() == {"engine:openvino": "libopenvino.so: cannot open shared object file"}
    registry.backend.cache_clear()
