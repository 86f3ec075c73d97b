"""The work that jobs can do, by kind: where the job API meets research and services.

Nothing heavy is imported before a job runs: ``nonet worker --list`` answers at once, and only the process of
a job ever holds PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nonet.cli.raw_job import develop_capture
from nonet.gateway.tasks.floor_buildings import FIT, SCANS, network_of, not_yours
from nonet.gateway.tasks.raw_development import DEVELOP, engine_words
from nonet.jobs.worker import Kind, Task

__all__ = ["engines", "kinds"]

_NEEDED = ("torch", "scipy", "sklearn")


def kinds(repository: Path) -> Mapping[str, Kind]:
    """Every kind; models are read from ``repository``, and published there."""
    return {
        FIT: Kind(functools.partial(_fit_building, repository), _missing_research),
        DEVELOP: Kind(functools.partial(develop_capture, repository)),
    }


def engines() -> Mapping[str, str]:
    """The engines that not every installation has, as words that jobs may need -> what is missing, "" if
    nothing. The precisions are those of this processor."""
    from nonet.runtime.backends.contract import DEFAULT_ENGINE, DEFAULT_PRECISION, ENGINES
    from nonet.runtime.backends.registry import backend

    found = {}
    for name in ENGINES:
        if name == DEFAULT_ENGINE:
            continue
        (word,) = engine_words(name, DEFAULT_PRECISION)
        try:
            words = [engine_words(name, precision) for precision in backend(name).precisions()]
        except Exception as error:  # whatever a broken installation raises, the other work goes on
            found[word] = str(error) or type(error).__name__
        else:
            found |= dict.fromkeys((word for (word,) in words), "")
    return found


def _missing_research() -> str:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"fitting a building needs {', '.join(missing)}; install it with: pip install 'nonet[research]'"


def _fit_building(repository: Path, task: Task) -> Mapping[str, Any]:
    """Fit a building and publish it; a job that had published before it died does not publish twice."""
    from nonet.research.fis_one.building import FitOptions, FitProgress, FloorLabel
    from nonet.research.fis_one.fit import fit_building
    from nonet.research.fis_one.publish import publish_building
    from nonet.runtime.errors import ModelRefused, PermissionDenied
    from nonet.runtime.repository.layout import MANIFEST_FILE, read_model
    from nonet.runtime.repository.manifest import read_manifest
    from nonet.runtime.repository.ownership import may_change, owner_of
    from nonet.runtime.scans import Scans

    spec, building = task.spec, str(task.spec["building"])
    network, command = network_of(building), f"nonet job {task.job}"
    before = read_model(repository, network)
    for known in reversed(before.versions if before is not None else ()):
        with contextlib.suppress(ModelRefused):  # a damaged version is not this job's
            manifest = read_manifest(known.path / MANIFEST_FILE)
            if manifest is not None and manifest.command == command:
                return _result(building, network, known.version)
    if not may_change(owner_of(repository, network), task.tenant):
        raise not_yours(building)
    task.report(0.0, "reading the scans")
    scans = Scans.load(task.input(SCANS))
    names = spec.get("names")
    options = FitOptions(
        preset=spec["preset"],
        floors=spec.get("floors"),
        names=None if names is None else tuple(names),
        seed=spec["seed"],
        threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
    )
    label = FloorLabel(spec["scan"], spec["floor"], spec.get("position"))

    def report(progress: FitProgress) -> None:
        task.report(0.98 * progress.fraction, progress.phase)

    fitted = fit_building(scans, label, options, report=report, checkpoint=task.folder / "checkpoint")
    task.report(0.98, "publishing")
    try:
        version = publish_building(repository, building, fitted, command=command, owner=task.tenant)
    except PermissionDenied:  # another tenant's fit has ended first
        raise not_yours(building) from None
    return _result(building, network, version.version)


def _result(building: str, network: str, version: str) -> dict[str, Any]:
    return {"building": building, "model": network, "version": version}
