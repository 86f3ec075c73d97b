"""Developing a capture as a job, in a worker's process: what serving needs, no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.errors import Conflict, ModelRefused, Unavailable
from nonet.runtime.job_context import JobContext
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, read_model
from nonet.runtime.repository.loader import load_with, prepare_version
from nonet.runtime.servable import Servable
from nonet.services.raw_image.job_spec import CAPTURE, DevelopSpec
from nonet.services.raw_image.limits import RawLimits
from nonet.services.raw_image.long_development import develop_file
from nonet.services.raw_image.options import read_options
from nonet.services.raw_image.partial_picture import write_whole

__all__ = ["develop_capture"]

_FACTS = "facts.json"
_PICTURE = "picture"


def develop_capture(job: JobContext) -> Mapping[str, Any]:
    """Develop a capture and publish the picture; what was published before the job died is not made again.

    Raises Conflict (``MODEL_CHANGED``) if the network is no longer the one that was chosen at the submit,
    Unavailable (``MODEL_REFUSED``) if it cannot be loaded.
    """
    spec = DevelopSpec.of(job.spec)
    published = job.published()
    if published is not None:
        return _result(job, spec, published)
    capture = job.input(CAPTURE)
    network = _load(job.repository, spec, job.threads)
    facts = develop_file(
        network,
        capture,
        job.folder / _PICTURE,
        read_options(spec.parameters),
        folder=job.folder,
        report=job.report,
        limits=RawLimits(pixels=spec.pixels),
        threads=job.threads,
    )
    write_whole(job.folder / _FACTS, facts)
    job.publish(job.folder / _PICTURE, job.folder / _FACTS)
    return _result(job, spec, facts)


def _result(job: JobContext, spec: DevelopSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "file": f"/v1/jobs/{job.job}/result",
        "model": spec.network,
        "version": spec.version,
        **facts,
    }


def _load(repository: Path, spec: DevelopSpec, threads: int) -> Servable:
    """The network of a job as the gateway has it: verified, with the same engine in the same arithmetic."""
    model = read_model(repository, spec.network)
    version = next((each for each in (model.versions if model else ()) if each.version == spec.version), None)
    if model is None or version is None:
        raise _changed(spec, "is no longer in the repository")
    try:
        config = read_config(model.path / CONFIG_FILE)
        prepared = prepare_version(repository, model, version, config, hasher=FileHasher())
        if prepared.content != spec.content:
            raise _changed(spec, "was replaced by another of the same number")
        # One thread an execution, as in the gateway: several tiles are worked on side by side instead.
        options = BackendOptions(engine=spec.engine, precision=spec.precision, concurrency=threads)
        return load_with(prepared, spec.engine, spec.precision, options)
    except ModelRefused as refused:
        raise Unavailable(
            f"model '{spec.network}' cannot be loaded: {refused.reason}", param="model", code="MODEL_REFUSED"
        ) from refused


def _changed(spec: DevelopSpec, how: str) -> Conflict:
    return Conflict(
        f"version {spec.version} of model '{spec.network}', which was chosen at the submit, {how}; submit "
        "the capture again",
        param="model",
        code="MODEL_CHANGED",
    )
