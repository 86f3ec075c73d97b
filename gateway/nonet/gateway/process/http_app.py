"""The ASGI application: every HTTP route of the gateway, over one data plane."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Collection

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from nonet.gateway.http.bodies import Bodies, Spooling
from nonet.gateway.http.door import Door
from nonet.gateway.http.guard import Observe, RequestGuard
from nonet.gateway.http.hot_routes import HotRoutes, is_oip
from nonet.gateway.http.origins import Origins
from nonet.gateway.http.problems import error_body, error_headers
from nonet.gateway.http.reply import RawResponse, Reply
from nonet.gateway.http.root_path import UnderRootPath
from nonet.gateway.http.route_methods import ANY_PATH, RouteMethods
from nonet.gateway.http.settings import HttpSettings
from nonet.gateway.oip.operations import Operations
from nonet.gateway.oip.rest_infer import OipInference
from nonet.gateway.oip.rest_routes import OipRoutes
from nonet.gateway.settings.reach import is_loopback
from nonet.gateway.tasks.face_parts import FaceParts
from nonet.gateway.tasks.fields import path_parameters
from nonet.gateway.tasks.jobs_rest import jobs_router
from nonet.gateway.tasks.model_cards import model_router
from nonet.gateway.tasks.openapi import describe
from nonet.gateway.tasks.pages import page_router
from nonet.gateway.tasks.rest import TaskRoute, service_router
from nonet.gateway.tracing import Tracer
from nonet.runtime.errors import InvalidArgument, MethodNotAllowed, NotFound, ServingError
from nonet.runtime.release import VERSION

Exposition = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Given an ``Accept`` header, the metrics as text and their content type."""


@dataclasses.dataclass(frozen=True, slots=True)
class HttpApp:
    """The ASGI application, and what refuses requests before they reach it, if anything does."""

    app: ASGIApp
    door: Door | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def create_app(
    parts: FaceParts,
    settings: HttpSettings,
    *,
    metrics_endpoint: Exposition,
    observe: Observe | None = None,
    tracer: Tracer | None = None,
    authenticated: bool = False,
) -> HttpApp:
    """The ASGI application; run it with :func:`nonet.gateway.http.server_config`.

    Args:
        parts: what is served; the core has been started.
        settings: limits.
        metrics_endpoint: answers ``/metrics``.
        observe: told of each answered request.
        tracer: follows them; None records none.
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
    origins = Origins(settings.hosts, settings.cors_origins, loopback=is_loopback(settings.host))

    def methods_of(scope: Scope) -> Collection[str]:
        if scope["path"] == ANY_PATH:
            return ("DELETE", "GET", "POST")
        return oip.methods_of(scope) if is_oip(scope["path"]) else _declared(app, scope)

    def guard(app: ASGIApp) -> ASGIApp:
        return RequestGuard(
            RouteMethods(app, methods_of),
            bodies=bodies,
            access_log=settings.access_log,
            observe=observe,
            origins=origins,
            overload_status=settings.overload_status,
            tracer=tracer,
        )

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
        app.include_router(
            jobs_router(parts.jobs, calls, {work.kind: work.headers for work in works}, parts.root_path)
        )
    app.include_router(model_router(plane, calls))
    app.include_router(page_router(services))

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        body, content_type = await metrics_endpoint(request.headers.get("accept", ""))
        return RawResponse(Reply(body, content_type=content_type.encode("latin-1")))

    app.add_exception_handler(HTTPException, _routing_failed)
    describe(
        app,
        services,
        authenticated=authenticated,
        max_timeout=settings.max_timeout,
        root_path=settings.root_path,
    )
    oip = OipRoutes(
        Operations(
            plane,
            parts.repository,
            allowed=settings.repository_control,
            face="HTTP",
            unserved=InvalidArgument,
            memory=parts.memory,
        ),
        OipInference(plane, calls, bodies, parts.memory),
        calls,
        bodies,
        settings.compress_from,
    )
    hot = {path: route for path, route in routes.items() if not path_parameters(path)}
    hot_routes = HotRoutes(oip, hot, guard, app)
    door = Door(
        hot_routes.way, bodies, origins, settings.access_log, observe, settings.overload_status, tracer
    )
    served: ASGIApp = hot_routes
    if settings.cors_origins:
        served = CORSMiddleware(
            served,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    if settings.root_path:
        served = UnderRootPath(served, settings.root_path)
    # What the layers above would add to an answer the door does not know.
    return HttpApp(served, door if served is hot_routes else None)


async def _routing_failed(request: Request, error: Exception) -> Response:
    """FastAPI's own refusals, in our shapes."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        raise MethodNotAllowed(f"{request.method} is not allowed here")
    if error.status_code == 404:
        return _failure(request, _no_route())
    return _failure(request, InvalidArgument(str(error.detail)))


def _declared(app: FastAPI, scope: Scope) -> Collection[str]:
    """The methods that a path has, over all its routes. Raises NotFound if there is no such path."""
    found = []
    for method in ("DELETE", "GET", "POST"):
        asked = {**scope, "method": method}
        if any(route.matches(asked)[0] is Match.FULL for route in app.router.routes):
            found.append(method)
    if not found:
        raise _no_route()
    return found


def _no_route() -> NotFound:
    return NotFound("there is no such route; see /docs", code="ROUTE_NOT_FOUND")


def _failure(request: Request, error: ServingError) -> RawResponse:
    body = error_body(request.scope["path"], error)
    return RawResponse(Reply(body, error.http_status, headers=error_headers(error)))
