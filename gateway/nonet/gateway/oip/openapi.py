"""The OpenAPI description of ``/v2``, whose routes FastAPI does not know."""

from __future__ import annotations

from typing import Any

from nonet.gateway.oip.control import TRACE_SETTINGS, log_settings
from nonet.gateway.tasks.openapi_parts import CALL_HEADERS, CALL_PARAMETERS, ERRORS, REQUEST_ID, RETRY_AFTER
from nonet.runtime.tensors import DataType

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NAME: Json = {"type": "string", "minLength": 1}
_DATATYPE: Json = {"type": "string", "enum": [str(kind) for kind in DataType]}
_PARAMETERS: Json = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "integer", "boolean"]},
}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], /, **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


def _whole(**properties: Json) -> Json:
    """An object with these properties, all required."""
    return _object([*properties], **properties)


def _closed(**properties: Json) -> Json:
    """An object with these properties and no others, all optional."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _list(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


_DURATION = _ref("OipDuration")
_PHASES = ("compute_input", "compute_infer", "compute_output")
_MOMENTS = ("success", "fail", "queue", *_PHASES, "cache_hit", "cache_miss")

SCHEMAS: Json = {
    "OipError": _whole(error=_TEXT),
    "OipServer": _whole(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "OipTensorMetadata": _whole(
        name=_TEXT, datatype=_DATATYPE, shape=_list({"type": "integer", "minimum": -1})
    ),
    "OipModel": _whole(
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("OipTensorMetadata")),
        outputs=_list(_ref("OipTensorMetadata")),
    ),
    "OipInput": {
        **_object(
            ["name", "datatype", "shape"],
            name=_NAME,
            datatype=_DATATYPE,
            shape=_list(_COUNT),
            parameters=_PARAMETERS,
            data=_list({}, description="The values, nested by shape or flat, row by row."),
        ),
        "description": "A tensor. Without `data`, `parameters.binary_data_size` says how many bytes of it "
        "follow the JSON part (binary tensor data extension).",
    },
    "OipRequestedOutput": _object(["name"], name=_NAME, parameters=_PARAMETERS),
    "OipInferRequest": _object(
        ["inputs"],
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_list(_ref("OipInput"), minItems=1),
        outputs=_list(_ref("OipRequestedOutput")),
    ),
    "OipOutput": _object(
        ["name", "datatype", "shape"],
        name=_TEXT,
        datatype=_DATATYPE,
        shape=_list(_COUNT),
        parameters=_PARAMETERS,
        data=_list({}),
    ),
    "OipInferResponse": _object(
        ["model_name", "outputs"],
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        parameters=_PARAMETERS,
        outputs=_list(_ref("OipOutput")),
    ),
    "OipDuration": _whole(count=_COUNT, ns=_COUNT),
    "OipModelStatistics": _object(
        ["name", "version", "inference_count", "execution_count", "inference_stats", "batch_stats"],
        name=_TEXT,
        version=_TEXT,
        last_inference={**_COUNT, "description": "Milliseconds since the epoch."},
        inference_count=_COUNT,
        execution_count=_COUNT,
        inference_stats=_whole(**dict.fromkeys(_MOMENTS, _DURATION)),
        batch_stats=_list(_whole(batch_size=_COUNT, **dict.fromkeys(_PHASES, _DURATION))),
    ),
    "OipStatistics": _whole(model_stats=_list(_ref("OipModelStatistics"))),
    "OipIndexEntry": _whole(**dict.fromkeys(("name", "version", "state", "reason"), _TEXT)),
}

_ANY: Json = {"type": "object"}
_FLAG: Json = {"type": "boolean"}
_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
_MODEL_NAME, _VERSION, _REGION = (
    {"name": name, "in": "path", "required": True, "schema": _NAME} for name in ("model", "version", "name")
)


def _operation(
    summary: str,
    answer: Json | None,
    *statuses: int,
    parameters: list[Json] | None = None,
    body: Json | None = None,
) -> Json:
    responses: Json = {"200": {"description": "Done."}}
    if answer is not None:
        responses["200"]["content"] = {"application/json": {"schema": answer}}
    for status in sorted({*statuses, 400, 401, 403, 405, 408, 413, 429, 431, 500, 503}):
        responses[str(status)] = {
            "description": ERRORS.get(status, "Refused."),
            "content": {"application/json": {"schema": _ref("OipError")}},
        }
        if status in (429, 503):
            responses[str(status)]["headers"] = RETRY_AFTER
    operation: Json = {
        "tags": ["Open Inference Protocol"],
        "summary": summary,
        "parameters": [*(parameters or []), REQUEST_ID],
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = body
    return operation


def _json_body(schema: Json, *, required: bool) -> Json:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _infer(parameters: list[Json]) -> Json:
    operation = _operation(
        "Infer",
        _ref("OipInferResponse"),
        *(404, 415, 422, 502, 504, 507),
        parameters=[
            *parameters,
            *(parameter for parameter in CALL_PARAMETERS if parameter is not REQUEST_ID),
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "Length of the JSON part when binary tensor data follows it.",
                "schema": _COUNT,
            },
        ],
        body=_json_body(_ref("OipInferRequest"), required=True),
    )
    done = operation["responses"]["200"]
    done["headers"] = CALL_HEADERS
    for told in (operation["requestBody"], done):
        told["content"]["application/octet-stream"] = _BINARY
    return operation


def _of_models() -> Json:
    reads = {
        "": ("Metadata of a model", _ref("OipModel")),
        "/ready": ("Is a model ready", _whole(name=_TEXT, ready=_FLAG)),
        "/config": ("Configuration of a model", _ANY),
        "/stats": ("Statistics of a model", _ref("OipStatistics")),
    }
    paths: Json = {}
    for prefix, parameters in (
        ("/v2/models/{model}", [_MODEL_NAME]),
        ("/v2/models/{model}/versions/{version}", [_MODEL_NAME, _VERSION]),
    ):
        for path, (summary, answer) in reads.items():
            paths[prefix + path] = {"get": _operation(summary, answer, 404, parameters=parameters)}
        paths[f"{prefix}/infer"] = {"post": _infer(parameters)}
    return paths


def _of_settings() -> Json:
    fixed = {"description": "Read only: the value in force, or null."}
    trace = _closed(**dict.fromkeys(TRACE_SETTINGS, fixed))
    log = _closed(**dict.fromkeys(log_settings(), fixed))

    def pair(what: str, schema: Json, parameters: list[Json]) -> Json:
        body = _json_body(schema, required=False)
        return {
            "get": _operation(f"Read {what} settings", _ANY, 404, parameters=parameters),
            "post": _operation(f"Change {what} settings", _ANY, 404, 415, parameters=parameters, body=body),
        }

    return {
        "/v2/logging": pair("log", log, []),
        "/v2/trace/setting": pair("trace", trace, []),
        "/v2/models/{model}/trace/setting": pair("trace", trace, [_MODEL_NAME]),
    }


def _of_repository() -> Json:
    index = _json_body(_object([], ready=_FLAG), required=False)
    load = _closed(config={"type": "string", "description": "The model configuration as a JSON text."})
    unload = _closed(unload_dependents=_FLAG)
    paths: Json = {
        "/v2/repository/index": {
            "post": _operation("Index of the model repository", _list(_ref("OipIndexEntry")), 415, body=index)
        }
    }
    for action, parameters in (("load", load), ("unload", unload)):
        body = _json_body(_object([], parameters=parameters), required=False)
        paths[f"/v2/repository/models/{{model}}/{action}"] = {
            "post": _operation(
                f"{action.capitalize()} a model",
                _ANY,
                *(403, 404, 409, 415, 422, 501, 507),
                parameters=[_MODEL_NAME],
                body=body,
            )
        }
    return paths


def _of_shared_memory() -> Json:
    one: Json = {"parameters": [_REGION]}
    paths: Json = {}
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        region = f"/v2/{kind}/region/{{name}}"
        paths |= {
            f"/v2/{kind}/status": {"get": _operation("Shared memory regions", _list(_ANY))},
            f"{region}/status": {"get": _operation("A shared memory region", _list(_ANY), 404, **one)},
            f"{region}/register": {"post": _operation("Not served: answers 400", None, 404, **one)},
            f"{region}/unregister": {"post": _operation("Forget a region", _ANY, 404, **one)},
            f"/v2/{kind}/unregister": {"post": _operation("Forget all regions", _ANY)},
        }
    return paths


def oip_paths() -> Json:
    """The paths of ``/v2`` as OpenAPI path items."""
    live = _whole(live=_FLAG)
    ready = _whole(ready=_FLAG)
    return {
        "/v2": {"get": _operation("Metadata of the server", _ref("OipServer"))},
        "/v2/health/live": {"get": _operation("Is the process alive", live)},
        "/v2/health/ready": {"get": _operation("Is the server ready for inference", ready)},
        "/v2/models/stats": {"get": _operation("Statistics of all models", _ref("OipStatistics"))},
        **_of_models(),
        **_of_repository(),
        **_of_settings(),
        **_of_shared_memory(),
    }
