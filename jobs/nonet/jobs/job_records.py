"""Jobs as both stores write them, a record of named fields each, and the refusals that both give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from nonet.jobs.job import JOB, Claim, Job, JobError, JobState
from nonet.runtime.errors import Conflict, NotFound, QuotaExceeded, Unavailable

_RETRY_SECONDS: Final = 30.0
"""Seconds after which a submit that found the queue full may be tried again."""
Record = Mapping[str, Any]
"""The fields of a job as a store gives them."""


def job_of(record: Record) -> Job:
    """The job of a record. Numbers may be texts; a field that says nothing may be None or absent."""
    fields: dict[str, Any] = {name: record.get(name) for name in Job.__dataclass_fields__ if name != "object"}
    fields |= {"eta_seconds": record.get("eta"), "ending": record.get("ending") or 0}
    for name in ("partial", "result", "error"):
        fields[name] = fields[name] and orjson.loads(fields[name])
    if fields["webhook"] is not None:
        states = {name: record.get(f"webhook_{name}") for name in ("state", "attempts", "error")}
        fields["webhook"] = {"url": fields["webhook"], **states}
    return JOB.validate_python(fields)


def claim_of(record: Record) -> Claim:
    """What whoever runs a job needs of its record."""
    return Claim(job_of(record), orjson.loads(record["spec"]), float(record["spent"]))


def json_of(value: Mapping[str, Any] | JobError | None) -> str | None:
    """A value as a record keeps it."""
    return None if value is None else orjson.dumps(value).decode()


def unknown_job() -> NotFound:
    """There is no such job, or it is another tenant's."""
    return NotFound("there is no such job", param="job", code="JOB_NOT_FOUND")


def job_ended(state: JobState) -> Conflict:
    """A job that has ended cannot be cancelled."""
    return Conflict(f"the job has {state.value} already", param="job", code="JOB_ENDED")


def key_reused() -> Conflict:
    """The idempotency key stands for another request."""
    return Conflict(
        "this Idempotency-Key was sent before with another request; use a new key",
        param="Idempotency-Key",
        code="IDEMPOTENCY_KEY_REUSED",
    )


def quota_used(waiting: int | str) -> QuotaExceeded:
    """The tenant's own jobs that wait are too many."""
    return QuotaExceeded(
        f"{waiting} of your jobs wait already; wait for one to end, or cancel one",
        code="JOBS_QUOTA",
        retry_after=_RETRY_SECONDS,
    )


def queue_full(waiting: int | str) -> Unavailable:
    """The jobs that wait are too many."""
    return Unavailable(
        f"{waiting} jobs wait already; retry later", code="JOBS_FULL", retry_after=_RETRY_SECONDS
    )
