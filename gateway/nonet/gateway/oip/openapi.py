"""The OpenAPI description of ``/v2``, whose routes FastAPI does not know."""

from __future__ import annotations

import re

from nonet.gateway.oip.rest_operations import OPERATIONS
from nonet.gateway.oip.schemas import COUNT, NAME, Json, reference
from nonet.gateway.tasks.openapi_parts import (
    CALL_HEADERS,
    CALL_PARAMETERS,
    REQUEST_ID,
    error_responses,
    parameter,
)

_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
_HEADER_LENGTH = parameter(
    "header",
    "Inference-Header-Content-Length",
    "Length of the JSON part when binary tensor data follows it.",
    COUNT,
)


def oip_paths() -> Json:
    """The paths of ``/v2`` as OpenAPI path items."""
    paths: Json = {}
    for each in OPERATIONS:
        item = paths.setdefault(each.path, {})
        item[each.verb.lower()] = described = _operation(each.path, each.summary, each.answer, *each.failures)
        if each.body is not None:
            described["requestBody"] = {"required": False, **_content(each.body)}
    for path in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
        paths[path] = {"post": _infer(path)}
    return paths


def _operation(path: str, summary: str, answer: Json | None, *failures: int) -> Json:
    names = re.findall(r"{(\w+)}", path)
    return {
        "tags": ["Open Inference Protocol"],
        "summary": summary,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": NAME} for name in names),
            REQUEST_ID,
        ],
        "responses": {
            "200": {"description": "Done.", **({} if answer is None else _content(answer))},
            # A name that is not plain ASCII makes another path, which there is none of.
            **error_responses(*failures, *([404] if names else []), schema=reference("OipError")),
        },
    }


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _infer(path: str) -> Json:
    operation = _operation(path, "Infer", reference("OipInferResponse"), *(404, 415, 422, 502, 504, 507))
    rest = (each for each in CALL_PARAMETERS if each is not REQUEST_ID)
    operation["parameters"] += [*rest, _HEADER_LENGTH]
    operation["requestBody"] = {"required": True, **_content(reference("OipInferRequest"))}
    done = operation["responses"]["200"]
    done["headers"] = CALL_HEADERS
    for told in (operation["requestBody"], done):
        told["content"]["application/octet-stream"] = _BINARY
    return operation
