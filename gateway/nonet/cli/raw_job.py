"""The job ``raw.develop``: where the job API meets the raw service. Needs what serving needs, no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonet.gateway.tasks.raw_development import CAPTURE, DevelopSpec
from nonet.jobs.worker import Task
from nonet.runtime.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from nonet.runtime.servable import Servable

__all__ = ["develop_capture"]

_FACTS = "facts.json"
_PICTURE = "picture"


def develop_capture(repository: Path, task: Task) -> Mapping[str, Any]:
    """Develop a capture and publish the picture; what was published before the job died is not made again.

    Raises Conflict (``MODEL_CHANGED``) if the network is no longer the one that was chosen at the submit,
    Unavailable (``MODEL_REFUSED``) if it cannot be loaded.
    """
    from nonet.services.raw_image import RawLimits, develop_file, read_options, write_whole

    spec = DevelopSpec.of(task.spec)
    published = task.published()
    if published is not None:
        return _result(task, spec, published)
    capture = task.input(CAPTURE)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    network = _load(repository, spec, threads)
    facts = develop_file(
        network,
        capture,
        task.folder / _PICTURE,
        read_options(spec.parameters),
        folder=task.folder,
        report=task.report,
        limits=RawLimits(pixels=spec.pixels),
        threads=threads,
    )
    write_whole(task.folder / _FACTS, facts)
    task.publish(task.folder / _PICTURE, task.folder / _FACTS)
    return _result(task, spec, facts)


def _result(task: Task, spec: DevelopSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "file": f"/v1/jobs/{task.job}/result",
        "model": spec.network,
        "version": spec.version,
        **facts,
    }


def _load(repository: Path, spec: DevelopSpec, threads: int) -> Servable:
    """The network of a job as the gateway has it: verified, with the same engine in the same arithmetic."""
    from nonet.runtime.backends.contract import BackendOptions
    from nonet.runtime.errors import ModelRefused
    from nonet.runtime.repository.config import read_config
    from nonet.runtime.repository.integrity import FileHasher
    from nonet.runtime.repository.layout import CONFIG_FILE, read_model
    from nonet.runtime.repository.loader import load_with, prepare_version

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
