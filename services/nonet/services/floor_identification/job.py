"""Fitting a building as a job, in a worker's process: the one place of this service that needs SciPy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from nonet.research.fis_one.building import FitOptions, FitProgress, FloorLabel
from nonet.research.fis_one.fit import fit_building as fit_scans
from nonet.research.fis_one.publish import publish_building
from nonet.runtime.errors import ModelRefused, PermissionDenied
from nonet.runtime.job_context import JobContext
from nonet.runtime.repository.layout import MANIFEST_FILE, read_model
from nonet.runtime.repository.manifest import read_manifest
from nonet.runtime.repository.ownership import may_change, owner_of
from nonet.runtime.scans import Scans
from nonet.services.floor_identification.building_names import SCANS, network_of, not_yours

__all__ = ["fit_building"]


def fit_building(job: JobContext) -> Mapping[str, Any]:
    """Fit a building and publish it; a job that had published before it died does not publish twice.

    Raises PermissionDenied (``BUILDING_NOT_YOURS``) for the building of another tenant.
    """
    spec, building = job.spec, str(job.spec["building"])
    network, command = network_of(building), f"nonet job {job.job}"
    before = read_model(job.repository, network)
    for known in reversed(before.versions if before is not None else ()):
        with contextlib.suppress(ModelRefused):  # a damaged version is not this job's
            manifest = read_manifest(known.path / MANIFEST_FILE)
            if manifest is not None and manifest.command == command:
                return _result(building, network, known.version)
    if not may_change(owner_of(job.repository, network), job.tenant):
        raise not_yours(building)
    job.report(0.0, "reading the scans")
    scans = Scans.load(job.input(SCANS))
    names = spec.get("names")
    options = FitOptions(
        preset=spec["preset"],
        floors=spec.get("floors"),
        names=None if names is None else tuple(names),
        seed=spec["seed"],
        threads=job.threads,
    )
    label = FloorLabel(spec["scan"], spec["floor"], spec.get("position"))

    def report(progress: FitProgress) -> None:
        job.report(0.98 * progress.fraction, progress.phase)

    fitted = fit_scans(scans, label, options, report=report, checkpoint=job.folder / "checkpoint")
    job.report(0.98, "publishing")
    try:
        version = publish_building(job.repository, building, fitted, command=command, owner=job.tenant)
    except PermissionDenied:  # another tenant's fit has ended first
        raise not_yours(building) from None
    return _result(building, network, version.version)


def _result(building: str, network: str, version: str) -> dict[str, Any]:
    return {"building": building, "model": network, "version": version}
