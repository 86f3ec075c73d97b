"""The operations of ``/v2`` beside inference: one table, for the routes and for the OpenAPI description."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from nonet.gateway.oip.operations import TRACE_SETTINGS, Asked, Operations, log_settings
from nonet.gateway.oip.schemas import COUNT, NAME, TEXT, Json, closed_object, list_of, object_of, reference

_Run = Callable[[Operations, Asked], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class RestOperation:
    """One verb of one path.

    Args:
        verb: ``GET`` or ``POST``.
        path: with names in braces.
        summary: for the description.
        run: what is done.
        answer: schema of the answer; None for one without a body.
        failures: statuses beside those that every route has.
        body: schema of the body; None where no body is read.
        of_repository: whether it needs a repository that can be changed.
        keyless: whether it is answered without a key.
    """

    verb: str
    path: str
    summary: str
    run: Callable[[Operations, Asked], Any]
    answer: Json | None
    failures: tuple[int, ...] = ()
    body: Json | None = None
    of_repository: bool = False
    keyless: bool = False


_ANY: Json = {"type": "object"}
_FLAG: Json = {"type": "boolean"}
_FIXED: Json = {"description": "Read only: the value in force, or null."}
_STATISTICS = reference("OipStatistics")
_CONFIG: Json = {**TEXT, "description": "The model configuration as a JSON text."}


def _body(**properties: Json) -> Json:
    return {"type": "object", "required": [], "properties": properties}


def _get(path: str, summary: str, run: _Run, answer: Json, *failures: int) -> RestOperation:
    return RestOperation("GET", path, summary, run, answer, failures)


def _post(
    path: str, summary: str, run: _Run, answer: Json | None, *failures: int, body: Json | None = None
) -> RestOperation:
    return RestOperation("POST", path, summary, run, answer, failures, body)


def _of_health(name: str, question: str, run: _Run) -> RestOperation:
    return RestOperation("GET", f"/v2/health/{name}", question, run, object_of(**{name: _FLAG}), keyless=True)


def _of_model(path: str) -> list[RestOperation]:
    ready = object_of(name=TEXT, ready=_FLAG)
    return [
        _get(path, "Metadata of a model", Operations.metadata, reference("OipModel"), 404),
        _get(f"{path}/ready", "Is a model ready", Operations.model_ready, ready, 404),
        _get(f"{path}/config", "Configuration of a model", Operations.config, _ANY, 404),
        _get(f"{path}/stats", "Statistics of a model", Operations.statistics, _STATISTICS, 404),
    ]


def _of_repository(action: str, run: _Run, **parameter: Json) -> RestOperation:
    path, summary = f"/v2/repository/models/{{model}}/{action}", f"{action.capitalize()} a model"
    body = _body(parameters=closed_object(**parameter))
    changed = _post(path, summary, run, _ANY, 403, 404, 409, 415, 422, 501, 507, body=body)
    return dataclasses.replace(changed, of_repository=True)


def _of_settings(path: str, what: str, run: _Run, names: Any) -> list[RestOperation]:
    body = closed_object(**dict.fromkeys(names, _FIXED))
    return [
        _get(path, f"Read {what} settings", run, _ANY, 404),
        _post(path, f"Change {what} settings", run, _ANY, 404, 415, body=body),
    ]


def _of_shared_memory(path: str, status: _Run, register: RestOperation, forget: _Run) -> list[RestOperation]:
    region, rows = f"{path}/region/{{name}}", list_of(_ANY)
    return [
        _get(f"{path}/status", "Shared memory regions", status, rows),
        _get(f"{region}/status", "A shared memory region", status, rows, 404),
        dataclasses.replace(register, path=f"{region}/register"),
        _post(f"{region}/unregister", "Forget a region", forget, _ANY),
        _post(f"{path}/unregister", "Forget all regions", forget, _ANY),
    ]


_REGISTER = _post(
    "",
    "Register a range of a POSIX shared memory object (400 where shared memory is switched off)",
    Operations.register,
    _ANY,
    *(403, 409, 415, 507),
    body=closed_object(key=NAME, offset=COUNT, byte_size={**COUNT, "minimum": 1}),
)
_NO_REGISTER = _post("", "Not served: answers 400", Operations.no_register, None)
_INDEX = list_of(reference("OipIndexEntry"))

OPERATIONS: tuple[RestOperation, ...] = (
    _get("/v2", "Metadata of the server", Operations.server_metadata, reference("OipServer")),
    _of_health("live", "Is the process alive", Operations.live),
    _of_health("ready", "Is the server ready for inference", Operations.ready),
    _get("/v2/models/stats", "Statistics of all models", Operations.statistics, _STATISTICS),
    *_of_model("/v2/models/{model}"),
    *_of_model("/v2/models/{model}/versions/{version}"),
    _post(
        "/v2/repository/index",
        "Index of the model repository",
        Operations.index,
        _INDEX,
        415,
        body=_body(ready=_FLAG),
    ),
    _of_repository("load", Operations.load, config=_CONFIG),
    _of_repository("unload", Operations.unload, unload_dependents=_FLAG),
    *_of_settings("/v2/logging", "log", Operations.log, log_settings()),
    *_of_settings("/v2/trace/setting", "trace", Operations.trace, TRACE_SETTINGS),
    *_of_settings("/v2/models/{model}/trace/setting", "trace", Operations.trace, TRACE_SETTINGS),
    *_of_shared_memory("/v2/systemsharedmemory", Operations.regions, _REGISTER, Operations.unregister),
    *_of_shared_memory("/v2/cudasharedmemory", Operations.no_regions, _NO_REGISTER, Operations.no_unregister),
)
"""A path without names stands before those that would fit it too."""
