"""Adapting a regressor in a worker's process: the one place of this service that needs PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from nonet.research.tasfar.release import MODEL_FILE, publish_adapted
from nonet.research.tasfar.site import Adaptation, AdaptOptions, adapt_version
from nonet.runtime.errors import Conflict, ModelRefused, PermissionDenied, Unprocessable
from nonet.runtime.job_context import JobContext
from nonet.runtime.repository.layout import MANIFEST_FILE, VersionFolder, read_model
from nonet.runtime.repository.manifest import read_manifest
from nonet.runtime.repository.ownership import may_change, owner_of
from nonet.runtime.tensors import Array
from nonet.services.adaptation.names import ROWS_FILE, not_yours

__all__ = ["adapt"]

_SHOWN_ROWS: Final = 2048
_BINS: Final = 40
_OF_LINEAGE: Final = ("map", "losses")
"""Evidence that is for looking at, and does not go into the manifest."""


def adapt(job: JobContext) -> Mapping[str, Any]:
    """Adapt, judge, and publish what is accepted; a job that had published before it died does not publish
    twice.

    The result's ``version`` is "" where nothing was published.

    Raises Conflict (``VERSION_GONE``) where the version that was pinned at the submit is no longer there,
    Unprocessable for one that cannot be adapted, PermissionDenied for the model of another tenant.
    """
    spec, name, command = job.spec, str(job.spec["name"]), f"nonet job {job.job}"
    known = _published(job.repository, name, command)
    if known is not None:
        return known
    if not may_change(owner_of(job.repository, name), job.tenant):
        raise not_yours(name)
    parent = _parent(job)
    shape = tuple(int(each) for each in spec["shape"])
    rows = np.fromfile(job.input(ROWS_FILE), np.dtype("<f4")).reshape(-1, *shape)
    options = AdaptOptions(method=spec["method"], seed=int(spec["seed"]), epochs=spec["epochs"])
    last = (0.0, "predicting")

    def report(what: str, share: float) -> None:
        nonlocal last
        last = (0.95 * share, what)
        job.report(*last)

    def watch(so_far: Mapping[str, Any]) -> None:
        job.report(*last, so_far)

    try:
        found = adapt_version(parent.path, rows, options, report, watch=watch)
    except ModelRefused as refused:
        raise Unprocessable(
            f"model '{parent.model}' cannot be adapted: {refused.reason}", param="model", code="NOT_ADAPTABLE"
        ) from None
    result = _told(job, parent, found)
    if found.files:
        job.report(0.95, "comparing before and after")
        result["distributions"] = _distributions(parent, found, rows)
    if not found.accepted or not spec["activate"]:
        return result
    job.report(0.98, "publishing")
    lineage = {
        "parent": parent.model,
        "parent_version": parent.version,
        "parent_sha256": hashlib.sha256((parent.path / MODEL_FILE).read_bytes()).hexdigest(),
        "job": job.job,
        "method": spec["method"],
        "seed": spec["seed"],
        "rows": len(rows),
        "decision": {"accepted": True, "reasons": list(found.reasons)},
        "evidence": {key: value for key, value in found.evidence.items() if key not in _OF_LINEAGE},
    }
    shadow_rows = int(spec.get("shadow", 0)) if read_model(job.repository, name) is not None else 0
    try:
        version = publish_adapted(
            job.repository,
            name,
            parent.path,
            found.files,
            lineage,
            command=command,
            owner=job.tenant,
            shadow_rows=shadow_rows,
        )
    except PermissionDenied:  # another tenant's job has ended first
        raise not_yours(name) from None
    if shadow_rows:
        result["notes"].append(
            f"version {version.version} answers {shadow_rows} rows beside the one that serves; if it is no "
            "worse its files follow as a further version, which serves"
        )
    return {**result, "version": version.version}


def _published(repository: Path, name: str, command: str) -> dict[str, Any] | None:
    """What an earlier attempt of the job has published."""
    before = read_model(repository, name)
    for known in reversed(before.versions if before is not None else ()):
        with contextlib.suppress(ModelRefused):  # a damaged version is not this job's
            manifest = read_manifest(known.path / MANIFEST_FILE)
            if manifest is not None and manifest.command == command:
                lineage = manifest.source.get("lineage", {})
                return {
                    "model": name,
                    "version": known.version,
                    "parent": {"model": lineage.get("parent"), "version": lineage.get("parent_version")},
                    "decision": "accepted",
                    "reasons": [],
                    "rows": lineage.get("rows"),
                    "evidence": lineage.get("evidence", {}),
                }
    return None


def _parent(job: JobContext) -> VersionFolder:
    """The version that is adapted."""
    model, version = str(job.spec["model"]), str(job.spec["version"])
    folder = read_model(job.repository, model)
    found = next((each for each in folder.versions if each.version == version), None) if folder else None
    if found is None:
        raise Conflict(
            f"version {version} of '{model}', which was to be adapted, is no longer there; submit again",
            param="model",
            code="VERSION_GONE",
        )
    return found


def _told(job: JobContext, parent: VersionFolder, found: Adaptation) -> dict[str, Any]:
    notes = []
    if found.accepted and not job.spec["activate"]:
        notes.append("nothing was published, as 'activate' is false; the same request with true makes it")
    if not found.accepted:
        notes.append("the model answers as before")
    if job.spec["ignored_columns"]:
        notes.append(f"columns that the model does not have: {', '.join(job.spec['ignored_columns'])[:500]}")
    return {
        "model": job.spec["name"],
        "version": "",
        "parent": {"model": parent.model, "version": parent.version},
        "decision": "accepted" if found.accepted else "declined",
        "reasons": list(found.reasons),
        "rows": job.spec["rows"],
        "evidence": dict(found.evidence),
        "notes": notes,
    }


def _distributions(parent: VersionFolder, found: Adaptation, rows: Array) -> list[dict[str, Any]]:
    """Of each output, how many of some rows' predictions lie in each of 40 bins, before and after: what the
    two graphs say that are served."""
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SHOWN_ROWS)).astype(np.int64)]
    before, after = (
        _predicted(graph, some)
        for graph in ((parent.path / MODEL_FILE).read_bytes(), found.files[MODEL_FILE])
    )
    shown = []
    for old, new in zip(before.T, after.T, strict=True):
        low, high = (float(edge(np.concatenate([old, new]))) for edge in (np.min, np.max))
        edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
        shown.append(
            {
                "edges": [float(each) for each in edges],
                "before": np.histogram(old, edges)[0].tolist(),
                "after": np.histogram(new, edges)[0].tolist(),
            }
        )
    return shown


def _predicted(graph: bytes, rows: Array) -> Array:
    """The values [N, D] of an ONNX graph, in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(["value"], {name: part})[0] for part in np.array_split(rows, -(-len(rows) // 256))]
    return np.concatenate(parts)
