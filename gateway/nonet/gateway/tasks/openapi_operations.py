"""What the OpenAPI description says of tasks and resources, made of the objects themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from nonet.gateway.tasks.fields import FieldReader, path_parameters
from nonet.gateway.tasks.jobs_schemas import IDEMPOTENCY_KEY, SUBMIT_HEADERS, WEBHOOK
from nonet.gateway.tasks.openapi_parts import (
    CALL_HEADERS,
    CALL_PARAMETERS,
    PLACEMENT_HEADER,
    REQUEST_ID,
    TASK_PARAMETERS,
    error_responses,
    header,
    parameter,
)
from nonet.gateway.tasks.schemas import Placement
from nonet.runtime.task import BlobDescription, FilePart, Resource, Service, Task

REF = "#/components/schemas/{model}"
_BYTES: dict[str, Any] = {"type": "string", "format": "binary", "minLength": 1}
_JSON = "application/json"
_TASK_FAILURES = (415, 422, 504)
_MODEL_FAILURES = (404, 409, 502, 507)
_WORK_FAILURES = (409, 501, 507)
_PREFER = parameter(
    "header",
    "Prefer",
    "`respond-async` (RFC 7240) makes a job of the request; other preferences are ignored.",
)


def service_paths(services: Iterable[Service]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The paths of all services, and the schemas that they refer to."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for service in services:
        for task in service.tasks:
            paths.setdefault(task.path, {})["post"] = _task(task, schemas)
        for resource in service.resources:
            paths.setdefault(resource.path, {})[resource.verb.lower()] = _resource(resource, schemas)
    return paths, schemas


def model_schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, str]:
    """A reference to a model's schema, which goes into ``schemas`` with all that it refers to."""
    schema = model.model_json_schema(ref_template=REF, mode="serialization")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"$ref": REF.format(model=model.__name__)}


def _task(task: Task, schemas: dict[str, Any]) -> dict[str, Any]:
    fields = FieldReader(task)
    schemas.update(fields.definitions)
    job, always = task.work is not None, task.work is not None and task.work.always
    failures = {*_TASK_FAILURES, *task.statuses}
    failures.update(() if always else _MODEL_FAILURES, _WORK_FAILURES if job else ())
    parameters = [
        *_in_path(task.path),
        *(CALL_PARAMETERS[:2] if always else [*CALL_PARAMETERS, *TASK_PARAMETERS]),
    ]
    if job and not always:
        parameters.append(_PREFER)
    if job:
        parameters.append({**IDEMPOTENCY_KEY, "description": f"Of a job. {IDEMPOTENCY_KEY['description']}"})
    if task.parts:
        about = "As in the body, which goes before where both have the field."
        parameters += [
            parameter("query", name, about, _bare(schema)) for name, schema in _texts(fields, job=job).items()
        ]
    responses: dict[str, Any] = {}
    if not always:
        headers = {**CALL_HEADERS, **PLACEMENT_HEADER}
        responses["200"] = _answer(task.response, schemas, task.streams, headers, accepts=task.accepts)
        if not isinstance(task.response, BlobDescription):
            placement = {**model_schema(Placement, schemas), "description": "Only if asked for (X-Explain)."}
            schemas[task.response.__name__]["properties"]["placement"] = placement
    if job:
        responses["202"] = _job(always)
    return {
        "tags": [task.tag],
        "summary": task.title,
        "description": task.description,
        "parameters": parameters,
        "requestBody": {"required": True, "content": _content(task, fields, job=job)},
        "responses": {**responses, **error_responses(*failures)},
    }


def _resource(resource: Resource, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = {"204": {"description": "It is gone."}}
    if resource.response is not None:
        answer = {"200": _answer(resource.response, schemas, False, {})}
    return {
        "tags": [resource.tag],
        "summary": resource.title,
        "description": resource.description,
        "parameters": [*_in_path(resource.path), REQUEST_ID],
        "responses": {**answer, **error_responses(*resource.statuses)},
    }


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in path_parameters(path)
    ]


def _answer(
    response: Any,
    schemas: dict[str, Any],
    streams: bool,
    headers: Mapping[str, Any],
    accepts: Iterable[str] = (),
) -> dict[str, Any]:
    if isinstance(response, BlobDescription):
        own = {name: header(about, {"type": kind}) for name, (kind, about) in response.headers.items()}
        content = _files(response.content_types)
        return {"description": response.description, "headers": {**headers, **own}, "content": content}
    content = {_JSON: {"schema": model_schema(response, schemas)}, **_files(accepts)}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    described: dict[str, Any] = {"description": response.__doc__ or "The answer.", "content": content}
    return {**described, "headers": dict(headers)} if headers else described


def _files(kinds: Iterable[str]) -> dict[str, Any]:
    """The content of an answer that is a file of one of the media types."""
    return {kind: {"schema": {**_BYTES, "minLength": 0}} for kind in kinds}


def _job(always: bool) -> dict[str, Any]:
    headers = dict(SUBMIT_HEADERS)
    if not always:
        headers["Preference-Applied"] = header("respond-async")
    return {
        "description": "The job." if always else "The job (`Prefer: respond-async`).",
        "headers": headers,
        "content": {_JSON: {"schema": {"$ref": REF.format(model="JobEnvelope")}}},
    }


def _content(task: Task, fields: FieldReader, *, job: bool) -> dict[str, Any]:
    """The request body in each of its forms."""
    properties = {name: _shown(schema) for name, schema in fields.schema.items()}
    if job:
        properties["webhook"] = {
            **WEBHOOK,
            "description": "Only of a job: a URL that is told of its end, if the operator allows its host.",
        }
    about = (task.fields.__doc__ or "").strip()
    if task.files:
        return _several_files(task, fields, properties, about)
    file = task.file
    if file is None:
        return {_JSON: {"schema": _object(properties, fields.required, about)}}
    required = [file.name, *fields.required]
    in_json = _inline(file)
    if not file.inline:
        in_json = {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object"},
            "description": file.description,
        }
    form = {file.name: {**_BYTES, "description": file.description}, **_texts(fields, job=job)}
    alone = {"schema": _BYTES}
    content = {
        "multipart/form-data": {"schema": _object(form, required, f"{about} As a form.")},
        _JSON: {"schema": _object({file.name: in_json, **properties}, required, f"{about} As JSON.")},
        **dict.fromkeys(file.documented, alone),
    }
    if file.inline:
        content["application/octet-stream"] = alone
    return content


def _several_files(
    task: Task, fields: FieldReader, properties: Mapping[str, Any], about: str
) -> dict[str, Any]:
    """The request body of a task with several files."""
    required = [*(part.name for part in task.files if not part.optional), *fields.required]
    form = {part.name: {**_BYTES, "description": part.description} for part in task.files}
    in_json = {part.name: _inline(part) for part in task.files}
    in_form = {**form, **_texts(fields, job=False)}
    return {
        "multipart/form-data": {"schema": _object(in_form, required, f"{about} As a form.")},
        _JSON: {"schema": _object({**in_json, **properties}, required, f"{about} As JSON.")},
    }


def _inline(part: FilePart) -> dict[str, Any]:
    return {"type": "string", "description": f"{part.description} In base64, or as a data: URL."}


def _object(properties: Mapping[str, Any], required: list[str], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    }


def _texts(fields: FieldReader, *, job: bool) -> dict[str, Any]:
    """The fields beside the file as a form or a query has them: lists and objects are texts."""
    texts = {}
    for name, schema in fields.schema.items():
        shown = _shown(schema)
        if "anyOf" in shown or "$ref" in shown or shown.get("type") in ("array", "object"):
            description = shown.get("description") or "As in JSON."
            shown = {
                "type": "string",
                "description": f"{description} As a text: a value, a list with commas, or JSON.",
            }
        texts[name] = shown
    return {**texts, "webhook": WEBHOOK} if job else texts


def _shown(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A field's schema without a default of null and without its made-up title."""
    shown = {name: value for name, value in schema.items() if name != "title"}
    if shown.get("default", 0) is None:
        del shown["default"]
    options = [each for each in shown.get("anyOf", ()) if each.get("type") != "null"]
    if len(options) == 1 and len(shown["anyOf"]) > 1:
        del shown["anyOf"]
        shown = {**options[0], **shown}
    return shown


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "description"}
