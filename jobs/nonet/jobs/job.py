"""What a job is: long work for a caller, its state, and the shape in which callers see it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from nonet.jobs.requirements import requirements_text
from nonet.runtime.errors import ServingError

__all__ = ["Claim", "Job", "JobState", "NewJob", "Orders", "Page", "Webhook", "WebhookState", "error_of"]


class JobState(enum.StrEnum):
    """``queued`` and ``running`` may follow each other several times; the other three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class WebhookState(enum.StrEnum):
    """``waiting`` until it was taken (``delivered``) or given up (``dead``)."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclasses.dataclass(frozen=True, slots=True)
class Webhook:
    """Who is to be told of a job's end, and how that went.

    Args:
        url: where to send it.
        state: see :class:`WebhookState`.
        attempts: how often it was sent, the attempt that is under way included.
        error: why the last attempt failed, None if it did not.
    """

    url: str
    state: WebhookState = WebhookState.WAITING
    attempts: int = 0
    error: str | None = None

    def public(self) -> dict[str, Any]:
        """The webhook as callers see it, JSON-able; without the URL, which may hold a secret."""
        return {"state": self.state.value, "attempts": self.attempts, "last_error": self.error}


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was read.

    Args:
        id: ``job_`` and 24 hexadecimal digits.
        kind: which work it is, e.g. ``models.fit``.
        subject: what it works on, e.g. the name of a building.
        tenant: whose job it is, "" when keys are off.
        state: see :class:`JobState`.
        phase: what is being done, in a word or two; "" before the first start.
        progress: share of the work that is done, 0 to 1.
        eta_seconds: expected seconds to the end while it runs, None if that is not known.
        result: what came of it, once it has succeeded.
        error: why it failed, in the fields of an error answer, once it has failed.
        attempts: how often it was started.
        cancelling: it runs, and was asked to stop.
        created, started, ended: seconds since the epoch; None if that has not happened.
        revision: grows with every change of the job; its webhook, which changes after the end, aside.
        webhook: who is told of its end, None if nobody.
        ending: how many jobs of the store had ended when it had, itself included; 0 before.
    """

    id: str
    kind: str
    subject: str
    tenant: str
    state: JobState
    phase: str
    progress: float
    eta_seconds: float | None
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    attempts: int
    cancelling: bool
    created: float
    started: float | None
    ended: float | None
    revision: int
    webhook: Webhook | None = None
    ending: int = 0

    def public(self, root: str = "") -> dict[str, Any]:
        """The job as callers see it, JSON-able; ``root`` goes before the path of the file it has made."""
        return {
            "id": self.id,
            "object": "job",
            "kind": self.kind,
            "subject": self.subject,
            "state": self.state.value,
            "phase": self.phase,
            "progress": round(self.progress, 4),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
            "result": None if self.result is None else _linked(self.result, root),
            "error": None if self.error is None else dict(self.error),
            "attempts": self.attempts,
            "cancelling": self.cancelling,
            "created_at": _moment(self.created),
            "started_at": _moment(self.started),
            "ended_at": _moment(self.ended),
            "webhook": None if self.webhook is None else self.webhook.public(),
        }


def _linked(result: Mapping[str, Any], root: str) -> dict[str, Any]:
    file = result.get("file")
    return {**result, "file": root + file} if root and isinstance(file, str) else dict(result)


@dataclasses.dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be submitted.

    Args:
        id: of the job to be; its folder of input files bears it too.
        kind, subject, tenant: see :class:`Job`.
        spec: what its runner needs to know beside its files, JSON-able.
        digest: of everything the caller sent; two submits are the same exactly if theirs are.
        key: the caller's idempotency key, "" if none.
        webhook: URL that is told of the job's end, "" if none; part of what ``digest`` is of.
        requirements: what a worker must have beside knowing the kind, each a word with a colon, e.g.
            ``engine:openvino``.

    Raises ValueError for a requirement that is no such word.
    """

    id: str
    kind: str
    subject: str
    tenant: str
    spec: Mapping[str, Any]
    digest: str
    key: str = ""
    webhook: str = ""
    requirements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        requirements_text(self.requirements)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A job that somebody may now run, and what its runner needs.

    ``spent`` are the seconds that earlier attempts took.
    """

    job: Job
    spec: Mapping[str, Any]
    spent: float


@dataclasses.dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told at a heartbeat: the job was cancelled, or is no longer this worker's."""

    cancelled: bool = False
    lost: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, the newest first, and whether there are older ones."""

    jobs: tuple[Job, ...]
    more: bool


def error_of(error: ServingError) -> dict[str, Any]:
    """A failure in the fields of an error answer: ``message``, ``type``, ``param``, ``code``."""
    return {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
