"""The OpenAPI description of the whole HTTP face: FastAPI's own, completed by ``/v2``."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from nonet.gateway.oip.openapi import oip_paths
from nonet.gateway.oip.schemas import SCHEMAS
from nonet.gateway.tasks.jobs_schemas import JobEnvelope
from nonet.gateway.tasks.openapi_operations import model_schema, service_paths
from nonet.gateway.tasks.schemas import ErrorEnvelope
from nonet.runtime.task import Service

_ABOUT = (
    "The task API (`/v1`) and the Open Inference Protocol (`/v2`). Errors of `/v1` have OpenAI's shape, "
    "errors of `/v2` the protocol's. Every answer carries `X-Request-Id`."
)


def describe(
    app: FastAPI, services: Sequence[Service], *, authenticated: bool, max_timeout: float, root_path: str = ""
) -> None:
    """Give ``app`` its description, built when it is first asked for.

    Args:
        services: whose tasks and resources are described.
        authenticated: whether keys are on; then each route but the health checks names the bearer scheme.
        max_timeout: the largest timeout a caller may ask for, seconds.
        root_path: where a proxy shows the server, "" for the root.
    """

    @functools.cache
    def openapi() -> dict[str, Any]:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=_ABOUT, routes=app.routes
        )
        document["servers"] = [{"url": root_path or "/"}]
        paths, schemas = service_paths(services)
        for model in (ErrorEnvelope, JobEnvelope):
            model_schema(model, schemas)
        document["paths"] = copy.deepcopy({**paths, **document["paths"], **oip_paths()})
        components = document.setdefault("components", {})
        components["schemas"] = {**components.get("schemas", {}), **schemas, **SCHEMAS}
        if authenticated:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, item in document["paths"].items():
                if not path.startswith("/v2/health/"):
                    for operation in item.values():
                        operation["security"] = [{"key": []}]
        for path, item in document["paths"].items():
            for verb, operation in item.items():
                operation["operationId"] = _operation_id(verb, path)
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] == "X-Request-Timeout-Ms":
                        parameter["schema"]["maximum"] = max_timeout * 1e3
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _operation_id(verb: str, path: str) -> str:
    words = path.replace("{", "").replace("}", "").strip("/").replace("/", "_")
    return f"{verb}_{words}".lower()
