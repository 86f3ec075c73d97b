"""What the routes of jobs give, as types: the source of their OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from nonet.gateway.tasks.openapi_parts import REQUEST_ID, error_responses, header, parameter
from nonet.gateway.tasks.schemas import Strict
from nonet.jobs import DEFAULT_PAGE, MAX_PAGE, Job


class JobEnvelope(Strict):
    """The job that a submit became."""

    job: Job


class JobList(Strict):
    """Jobs, the newest first."""

    object: Literal["list"]
    data: list[Job]
    has_more: bool = Field(description="Whether there are older ones; send the last id as `after`.")


SUBMIT_HEADERS: dict[str, Any] = {
    "Location": header("Where to look at the job."),
    "Idempotency-Replayed": header("true: this request was sent before, and this is its job."),
}

IDEMPOTENCY_KEY: dict[str, Any] = parameter(
    "header",
    "Idempotency-Key",
    "Equal requests under one key are one job; another request under it is 409.",
    {"type": "string", "minLength": 1, "maxLength": 200},
)

WEBHOOK: dict[str, Any] = {
    "type": "string",
    "maxLength": 2048,
    "description": "URL that is told of the job's end.",
}

JOBS: dict[str, Any] = {
    "description": "Your jobs, the newest first. Jobs that ended long ago are forgotten "
    "(settings `jobs.keep_seconds`, `jobs.keep_jobs`).",
    "responses": error_responses(404, 422, 507),
    "openapi_extra": {
        "parameters": [
            REQUEST_ID,
            parameter(
                "query",
                "limit",
                "At most so many.",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
            ),
            parameter("query", "after", "Only jobs older than this one."),
            parameter(
                "query", "state", "Only jobs in these states, separated by commas or as a repeated field."
            ),
        ]
    },
}

JOB: dict[str, Any] = {
    "description": "One of your jobs.",
    "responses": error_responses(404, 422, 507),
}

CANCEL: dict[str, Any] = {
    "description": "A job that waits is cancelled at once (200); one that runs is asked to stop (202) and is "
    "cancelled as soon as it has. Cancelling a cancelled job again changes nothing; a job that has "
    "succeeded or failed is 409.",
    "responses": {
        202: {"model": Job, "description": "It runs and was asked to stop."},
        **error_responses(404, 409, 422, 507),
    },
}

RESULT: dict[str, Any] = {
    "description": "The file that a job has made, of a kind that makes one (a picture, say, with "
    "the headers that say how it was made). It is kept for a while after the job's end (settings "
    "`jobs.keep_result_seconds`, `jobs.keep_result_bytes`), then this is 404 `RESULT_EXPIRED`; 409 while the "
    "job has not succeeded.",
    "responses": {
        200: {
            "description": "The file; the job's result has its SHA-256.",
            "headers": {"X-Model-Version": header("Version that made it.")},
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/png", "image/tiff", "image/jpeg")
            },
        },
        **error_responses(404, 409, 422, 507),
    },
    "openapi_extra": {"parameters": [REQUEST_ID]},
}

_EVENT: dict[str, Any] = {
    "type": "string",
    "description": "Lines of server-sent events: of each its `event` (`state` or `progress`), its `id`, and "
    "as `data` the job in JSON.",
}

EVENTS: dict[str, Any] = {
    "description": "Server-sent events: `state` when the state is another than before, `progress` when only "
    "the progress is. The data of each is the whole job as it stands, so one that is missed is made up for "
    "by the next. The stream ends with the job; with `Last-Event-ID` it goes on where it was left.",
    "responses": {
        200: {
            "description": "The events.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "The job has ended, and its last event was seen."},
        **error_responses(404, 422, 507),
    },
    "openapi_extra": {
        "parameters": [
            REQUEST_ID,
            parameter(
                "header",
                "Last-Event-ID",
                "The id of the last event that was seen.",
                {"type": "integer", "minimum": 0},
            ),
        ]
    },
}
