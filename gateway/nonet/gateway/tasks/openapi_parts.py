"""What the OpenAPI description says of the task routes beyond their types."""

from __future__ import annotations

from typing import Any

from nonet.gateway.core.call_headers import MAX_PRIORITY

ERRORS = {
    400: "A value is wrong; the message says which, and what is accepted.",
    401: "No API key, or one that is not known (only when keys are on).",
    403: "Not allowed here: by the operator, by the name the server was reached under, or from a page of "
    "another site.",
    404: "Nothing of that name: no such model, job or building.",
    405: "The route exists, the verb does not; `Allow` says which do.",
    408: "The request did not arrive in time.",
    409: "The state of the thing forbids it; the message says what to do first.",
    413: "The body, or the image in it, is too large.",
    415: "The content type or encoding is not spoken here, or the bytes are not an image.",
    422: "The request does not fit the schema, or it has broken its worker before.",
    429: "Over the caller's quota; `Retry-After` says when to come back.",
    431: "The headers are too large.",
    500: "A defect of the server; its log has more under the request id.",
    501: "The server lacks what this needs.",
    502: "The model answered something invalid.",
    503: "Overloaded, draining, or the deadline cannot be met; `Retry-After` says when to come back.",
    504: "The deadline passed.",
    507: "Memory or disk is full.",
}

RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which a retry makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    }
}

_TEXT = {"type": "string"}


def parameter(place: str, name: str, description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    """A parameter in the query or a header, in the words of the document."""
    return {"name": name, "in": place, "description": description, "schema": schema}


def header(description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    """A header of an answer, in the words of the document."""
    return {"description": description, "schema": schema}


REQUEST_ID = parameter(
    "header",
    "X-Request-Id",
    "Echoed, and in every log line of the request. Replaced by one of ours if it is not 1 to 128 "
    "characters of `A-Za-z0-9._-`.",
)

CALL_PARAMETERS: list[dict[str, Any]] = [
    REQUEST_ID,
    parameter(
        "header",
        "X-Request-Timeout-Ms",
        "The answer is wanted within this many milliseconds of the request's first byte. A request that "
        "cannot be answered in time is refused at once.",
        {"type": "number", "minimum": 0},
    ),
    parameter(
        "header",
        "X-Priority",
        "0 is the highest.",
        {"type": "integer", "minimum": 0, "maximum": MAX_PRIORITY, "default": 1},
    ),
    parameter(
        "header",
        "Cache-Control",
        "`no-cache` computes the answer anew, `no-store` also keeps it out of the cache.",
    ),
    parameter(
        "header", "traceparent", "W3C trace context; its trace id is in every log line of the request."
    ),
]

TASK_PARAMETERS: list[dict[str, Any]] = [
    parameter(
        "header",
        "X-Accuracy-Floor",
        "Least quality of the model, in the figure that orders the task's families (e.g. top1). Nothing so "
        "good is answered 409.",
        {"type": "number"},
    ),
    parameter(
        "header",
        "X-Explain",
        "`true` adds `placement` to the answer, of a file or a stream the header `X-Placement`: which models "
        "and devices there were, and why this one.",
        {"type": "boolean"},
    ),
    parameter("query", "explain", "As `X-Explain`.", {"type": "boolean"}),
]
"""Of a request that chooses a model and is answered at once."""

PLACEMENT_HEADER = {
    "X-Placement": header("Only if asked for: `Placement` as compact JSON, at most 4096 bytes."),
}

CALL_HEADERS: dict[str, Any] = {
    "X-Request-Id": header("Id of the request."),
    "X-Model-Version": header("Version that answered."),
    "X-Device": header("Device that computed the answer."),
    "X-Cache": header(
        "Where the answer came from.", {"type": "string", "enum": ["hit", "miss", "coalesced", "bypass"]}
    ),
    "X-Batch-Size": header("Rows in the batch that was executed.", {"type": "integer"}),
    "Server-Timing": header("Milliseconds for decode, queue, compute and encode."),
}


def error_responses(*statuses: int, schema: dict[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """The documented failures of a route: those given, and those every route has.

    Args:
        statuses: HTTP statuses.
        schema: of the bodies; the task API's by default.
    """
    schema = schema or {"$ref": "#/components/schemas/ErrorEnvelope"}
    return {
        str(status): {
            "description": ERRORS[status],
            **({"headers": RETRY_AFTER} if status in (429, 503) else {}),
            "content": {"application/json": {"schema": schema}},
        }
        for status in sorted({*statuses, 400, 401, 403, 405, 408, 413, 429, 431, 500, 503})
    }


MODELS: dict[str, Any] = {
    "description": "Families first, then single models; each `id` can be sent as `model`.",
    "responses": error_responses(),
}

MODEL: dict[str, Any] = {
    "description": "One entry of the list.",
    "responses": error_responses(404, 422),
}
