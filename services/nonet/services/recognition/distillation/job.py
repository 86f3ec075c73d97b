"""Distilling a classifier in a worker's process: the one place of this service that needs PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from nonet.research.stablekd.pair import Pair, distil_pair
from nonet.runtime.errors import ModelRefused, Unprocessable
from nonet.runtime.job_context import JobContext
from nonet.runtime.repository.layout import MANIFEST_FILE, read_model
from nonet.runtime.repository.manifest import DataSource, read_manifest
from nonet.services.recognition.distillation.names import PICTURES

__all__ = ["distil"]

_CHECKPOINT = "checkpoint.pt"


def distil(job: JobContext) -> Mapping[str, Any]:
    """Distil and publish; a job that had published before it died does not publish twice.

    Raises Unprocessable (``LEARNT_TOO_LITTLE``) for a student that agrees with its teacher too seldom.
    """
    spec, command = job.spec, f"nonet job {job.job}"
    name = str(spec["name"])
    before = read_model(job.repository, name)
    for known in reversed(before.versions if before is not None else ()):
        with contextlib.suppress(ModelRefused):  # a damaged version is not this job's
            manifest = read_manifest(known.path / MANIFEST_FILE)
            if manifest is not None and manifest.command == command:
                return {"model": name, "version": known.version, "quality": dict(manifest.quality)}
    pair = Pair(
        repository=job.repository,
        teacher=str(spec["teacher"]),
        student=str(spec["student"]),
        pictures=job.input(PICTURES),
        minutes=float(spec["minutes"]),
        schedule=str(spec["schedule"]),
        seed=int(spec["seed"]),
        threads=job.threads,
        name=name,
        data=(DataSource(name=f"{spec['count']} pictures sent with the job"),),
        command=command,
        owner=job.tenant,
        least_agreement=float(spec["least_agreement"]),
    )
    outcome = distil_pair(pair, job.report, checkpoint=job.folder / _CHECKPOINT, resume=True)
    if not outcome.version:
        raise Unprocessable(outcome.notes[-1], param="minutes", code="LEARNT_TOO_LITTLE")
    return {
        "model": outcome.model,
        "version": outcome.version,
        "quality": dict(outcome.quality),
        "notes": list(outcome.notes),
    }
