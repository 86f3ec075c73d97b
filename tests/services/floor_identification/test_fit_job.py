"""Fitting a building as a job, run as a worker runs it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nonet.runtime.errors import PermissionDenied
from nonet.runtime.job_context import JobContext
from nonet.runtime.scans import Scans
from tests.support import toy_worker


def job_of(tenant: str, folder: Path) -> JobContext:
    """The job of a tenant whose scans cannot be read: a fit that gets so far says so."""
    spec: dict[str, Any] = {"building": "home"}
    reports: list[str] = []
    task = SimpleNamespace(
        job="job_1",
        tenant=tenant,
        spec=spec,
        repository=folder / "models",
        threads=1,
        folder=folder,
        input=lambda name: folder / name,
        report=lambda _, phase: reports.append(phase),
    )
    return cast("JobContext", task)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_fit_of_the_building_of_another_tenant_ends_before_it_begins(tmp_path: Path, damaged: bool) -> None:
    pytest.importorskip("torch")
    scans = Scans.build([("a", {"m1": -50.0})])
    for _ in range(2):
        toy_worker.publish(tmp_path / "models", "home", scans, {}, 0, "job", "ann")
    if damaged:
        (tmp_path / "models" / "floors_home" / "2" / "manifest.json").write_text("{")
    fit = importlib.import_module("nonet.services.floor_identification.job").fit_building
    with pytest.raises(PermissionDenied) as refused:
        fit(job_of("ben", tmp_path))
    assert refused.value.code == "BUILDING_NOT_YOURS"
    for tenant in ("ann", ""):
        with pytest.raises(FileNotFoundError):
            fit(job_of(tenant, tmp_path))
