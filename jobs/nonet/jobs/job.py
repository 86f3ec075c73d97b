"""What a job is: long work for a caller, its state, and the shape in which callers see it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import ConfigDict, Field, PlainSerializer

from nonet.jobs.requirements import requirements_text
from nonet.runtime.errors import ServingError


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


# Callers get all fields but those that are excluded, and no others.
_PUBLIC: Final = ConfigDict(
    json_schema_serialization_defaults_required=True, json_schema_extra={"additionalProperties": False}
)
Moment = Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3), float)]
Share = Annotated[float, PlainSerializer(lambda share: round(share, 4), Annotated[float, Field(ge=0, le=1)])]


@pydantic.dataclasses.dataclass(frozen=True, config=_PUBLIC)
class Webhook:
    """How it goes with telling the caller's URL of the job's end."""

    url: str = Field(exclude=True)  # it may hold a secret
    state: WebhookState = Field(
        WebhookState.WAITING, description="waiting, delivered, or dead: given up after too many attempts."
    )
    attempts: int = Field(0, ge=0, description="How often it was sent, the attempt under way included.")
    error: str | None = Field(
        None, serialization_alias="last_error", description="Why the last attempt failed."
    )


@pydantic.dataclasses.dataclass(frozen=True, config=_PUBLIC)
class JobError:
    """Why a job has failed, in the fields of an error answer."""

    message: str = Field(description="One sentence.")
    type: str = Field(description="Class of the error, e.g. invalid_request_error.")
    param: str | None = Field(description="The field at fault, if there is one.")
    code: str = Field(description="Exact cause for programs, e.g. WORKER_CRASHED.")


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_PUBLIC)
class Job:
    """Long work, as it stands."""

    id: str
    object: Literal["job"] = "job"
    kind: str = Field(description="Which work it is, e.g. the fitting of a model.")
    subject: str = Field(description="What it works on, e.g. the name of a building.")
    tenant: str = Field(exclude=True, description='Whose job it is, "" when keys are off.')
    state: JobState = Field(
        description="queued and running may follow each other several times (a worker died, the server was "
        "stopped); the others are final."
    )
    phase: str = Field(
        description="What is being done, in a word or two; of a job that waits for a worker that nobody has "
        "heard of, what is missing: `waiting: no worker offers ...`."
    )
    progress: Share = Field(description="Share of the work that is done.")
    eta_seconds: Annotated[float, PlainSerializer(lambda seconds: round(seconds, 1), float)] | None = Field(
        description="Expected seconds to the end while it runs, if known."
    )
    partial: dict[str, Any] | None = Field(
        None, description="What the work has found so far, while it runs and if it says; null otherwise."
    )
    result: dict[str, Any] | None = Field(description="What came of it, once it has succeeded.")
    error: JobError | None = Field(description="Why it failed, once it has failed.")
    attempts: int = Field(ge=0, description="How often it was started.")
    cancelling: bool = Field(description="It runs, and was asked to stop.")
    created: Moment = Field(serialization_alias="created_at", description="Seconds since the epoch.")
    started: Moment | None = Field(serialization_alias="started_at")
    ended: Moment | None = Field(serialization_alias="ended_at")
    revision: int = Field(
        exclude=True, description="Grows with every change; the webhook, which changes after the end, aside."
    )
    webhook: Webhook | None = Field(description="Null where the submit named none.")
    ending: int = Field(
        exclude=True,
        description="How many jobs had ended when it had, itself included; 0 before.",
    )

    def public(self, root: str = "") -> dict[str, Any]:
        """The job as callers see it, JSON-able; ``root`` goes before the path of the file it has made."""
        shown: dict[str, Any] = JOB.dump_python(self, mode="json", by_alias=True)
        if root and self.result is not None and isinstance(file := self.result.get("file"), str):
            shown["result"]["file"] = root + file
        return shown


JOB: Final = pydantic.TypeAdapter(Job)


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
class Beat:
    """What a worker says at a heartbeat.

    Args:
        worker: names its process (:func:`~nonet.jobs.process_identity.process_name`).
        seconds: how long it has run since the last one.
        progress: share of the work that is done; what is beyond 0 to 1 is cut off (``share``).
        phase: what is being done.
        eta_seconds: expected seconds to the end, None if that is not known.
        partial: what it has found so far, None if that is what it was at the last beat.
    """

    worker: str
    seconds: float
    progress: float
    phase: str
    eta_seconds: float | None = None
    partial: Mapping[str, Any] | None = None

    @property
    def share(self) -> float:
        return min(max(self.progress, 0.0), 1.0)


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


def error_of(error: ServingError) -> JobError:
    """A failure as a job keeps it."""
    return JobError(error.message, error.kind, error.param, error.code)
