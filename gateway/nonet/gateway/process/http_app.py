"""The ASGI application: every HTTP route of the gateway, over one data plane."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from nonet.gateway.http.bodies import Bodies, Spooling
from nonet.gateway.http.guard import App, Observe, RequestGuard
from nonet.gateway.http.hot_routes import HotRoutes
from nonet.gateway.http.problems import error_body, error_headers
from nonet.gateway.http.reply import RawResponse, Reply
from nonet.gateway.http.settings import HttpSettings
from nonet.gateway.oip.operations import Operations
from nonet.gateway.oip.rest_infer import OipInference
from nonet.gateway.oip.rest_routes import OipRoutes
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.fields import path_parameters
from nonet.gateway.tasks.jobs_rest import jobs_router
from nonet.gateway.tasks.model_cards import model_router
from nonet.gateway.tasks.openapi import describe
from nonet.gateway.tasks.pages import page_router
from nonet.gateway.tasks.rest import TaskRoute, service_router
from nonet.runtime.errors import (
    InvalidArgument,
    MethodNotAllowed,
    NotFound,
    ServingError,
    Unprocessable,
)
from nonet.runtime.release import VERSION

Exposition = Callable[[str], tuple[bytes, str]]
"""Given an ``Accept`` header, the metrics as text and their content type."""


def create_app(
    parts: FaceParts,
    settings: HttpSettings,
    *,
    metrics_endpoint: Exposition,
    observe: Observe | None = None,
    authenticated: bool = False,
) -> App:
    """The ASGI application; run it with :func:`nonet.gateway.http.server_config`.

    Args:
        parts: what is served; the core has been started.
        settings: limits.
        metrics_endpoint: answers ``/metrics``.
        observe: told of each answered request.
        authenticated: whether keys are on, which the OpenAPI description then says.
    """
    plane, calls, services = parts.plane, parts.calls, parts.services
    app = FastAPI(
        title="Nonet",
        version=VERSION,
        summary="Nine systems, one gateway.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    spooled: dict[str, Spooling] = {}
    bodies = Bodies(settings, parts.uploads, spooled, parts.disk)
    guard = functools.partial(RequestGuard, bodies=bodies, access_log=settings.access_log, observe=observe)
    app.add_middleware(guard)
    routes: dict[str, TaskRoute] = {}
    for service in services:
        for task in service.tasks:
            routes[task.path] = route = TaskRoute(task, parts, bodies)
            if (spooling := route.spooling()) is not None:
                spooled[task.path] = spooling
        app.include_router(service_router(service, routes, parts))
    if parts.jobs is not None:
        works = [task.work for service in services for task in service.tasks if task.work is not None]
        app.include_router(jobs_router(parts.jobs, calls, {work.kind: work.headers for work in works}))
    app.include_router(model_router(plane, calls))
    app.include_router(page_router(services))

    @app.api_route("/metrics", methods=["GET", "HEAD"], include_in_schema=False)
    async def metrics(request: Request) -> Response:
        body, content_type = metrics_endpoint(request.headers.get("accept", ""))
        return RawResponse(Reply(body, content_type=content_type.encode("latin-1")))

    app.add_exception_handler(HTTPException, _routing_failed)
    app.add_exception_handler(RequestValidationError, _validation_failed)
    describe(app, services, authenticated=authenticated, max_timeout=settings.max_timeout)
    oip = OipRoutes(
        Operations(
            plane,
            parts.repository,
            allowed=settings.repository_control,
            face="HTTP",
            unserved=InvalidArgument,
        ),
        OipInference(plane, calls, bodies),
        calls,
        bodies,
        settings.compress_from,
    )
    hot = {path: route for path, route in routes.items() if not path_parameters(path)}
    return HotRoutes(oip, hot, guard, app)


async def _routing_failed(request: Request, error: Exception) -> Response:
    """FastAPI's own refusals, in our shapes."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = _verbs(request)
        refusal = MethodNotAllowed(f"{request.method} is not allowed here; use {allowed}")
        return _failure(request, refusal, (b"allow", allowed.encode("latin-1")))
    if error.status_code == 404:
        return _failure(request, NotFound("there is no such route; see /docs", code="ROUTE_NOT_FOUND"))
    return _failure(request, InvalidArgument(str(error.detail)))


def _verbs(request: Request) -> str:
    """The verbs that the request's path has, over all its routes: one may be there for each verb."""
    routes = request.app.router.routes
    asked = {verb: {**request.scope, "method": verb} for verb in ("DELETE", "GET", "HEAD", "POST")}
    return ", ".join(
        verb
        for verb, scope in asked.items()
        if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


async def _validation_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(error.errors()[0])
    field = ".".join(str(part) for part in first.get("loc", ())[1:])
    return _failure(
        request, Unprocessable(f"field '{field}': {first.get('msg', 'is wrong')}", param=field or None)
    )


def _failure(request: Request, error: ServingError, *headers: tuple[bytes, bytes]) -> RawResponse:
    body = error_body(request.scope["path"], error)
    return RawResponse(Reply(body, error.http_status, headers=[*error_headers(error), *headers]))
