"""Control of the server over REST: the bodies of model repository, trace, log and shared memory requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.reply import Reply
from nonet.gateway.oip.control import (
    TRACE_SETTINGS,
    ServerControl,
    changed_setting,
    log_settings,
    no_region,
)
from nonet.gateway.oip.rest_target import Handler, OipTarget, check_content_type
from nonet.runtime.errors import InvalidArgument

_MAX_CONTROL_BODY = 1024 * 1024


class OipControl:
    """The controlling half of ``/v2``.

    Args:
        plane: the core.
        calls: reads keys.
        bodies: reads bodies within their limits.
        repository: the model repository, or None when there is none to control.
        allowed: whether callers may load and unload.
    """

    def __init__(
        self,
        plane: DataPlane,
        calls: CallReader,
        bodies: Bodies,
        repository: RepositoryControl | None,
        *,
        allowed: bool = True,
    ) -> None:
        self._calls = calls
        self._bodies = bodies
        self._control = ServerControl(plane, repository, allowed=allowed, how="over HTTP")
        self.trace: Mapping[str, Handler] = {
            "GET": self._read_trace,
            "POST": self._write_trace,
        }
        self.logging: Mapping[str, Handler] = {
            "GET": self._read_logging,
            "POST": self._write_logging,
        }

    # Repository

    async def index(self, target: OipTarget) -> Reply:
        """Every version known; with ``{"ready": true}`` only those that can be called."""
        self._calls.authenticate(target.exchange)
        options = await self._json_object(target)
        only_ready = options.get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidArgument("ready must be true or false", param="ready")
        return Reply.json(self._control.index(only_ready=only_ready))

    async def load(self, target: OipTarget) -> Reply:
        """Load a model, or load it again; ``parameters.config`` replaces its configuration."""
        tenant = self._controlled(target)
        parameters = await self._parameters(target)
        override = parameters.pop("config", None)
        if override is not None and not isinstance(override, str):
            raise InvalidArgument(
                "parameters.config must be the model configuration as a JSON text", param="parameters.config"
            )
        if parameters:
            name = next(iter(parameters))[:80]
            why = "models are not taken over HTTP" if name.startswith("file:") else "is not known"
            raise InvalidArgument(f"parameters.{name}: {why}; accepted: config", param=f"parameters.{name}")
        await self._control.load(target.model, override, tenant)
        return Reply.json({"name": target.model, "state": "READY"})

    async def unload(self, target: OipTarget) -> Reply:
        """Unload a model; requests that use it finish first."""
        tenant = self._controlled(target)
        parameters = await self._parameters(target)
        if not isinstance(parameters.pop("unload_dependents", False), bool):
            raise InvalidArgument(
                "parameters.unload_dependents must be true or false", param="parameters.unload_dependents"
            )
        if parameters:
            name = next(iter(parameters))[:80]
            raise InvalidArgument(
                f"parameters.{name} is not known; accepted: unload_dependents", param=f"parameters.{name}"
            )
        await self._control.unload(target.model, tenant)
        return Reply.json({"name": target.model, "state": "UNAVAILABLE"})

    def _controlled(self, target: OipTarget) -> str:
        """The tenant who wants to change the repository. Raises PermissionDenied or NotImplementedHere."""
        tenant = self._calls.authenticate(target.exchange)
        self._control.repository()
        return tenant

    # Trace and log settings

    async def _read_trace(self, target: OipTarget) -> Reply:
        self._calls.authenticate(target.exchange)
        return Reply.json(self._control.trace_settings(target.model))

    async def _write_trace(self, target: OipTarget) -> Reply:
        await self._unchangeable(target, TRACE_SETTINGS, "trace")
        return await self._read_trace(target)

    async def _read_logging(self, target: OipTarget) -> Reply:
        self._calls.authenticate(target.exchange)
        return Reply.json(log_settings())

    async def _write_logging(self, target: OipTarget) -> Reply:
        await self._unchangeable(target, log_settings(), "log")
        return await self._read_logging(target)

    async def _unchangeable(self, target: OipTarget, current: Mapping[str, Any], what: str) -> None:
        """Accept a change that changes nothing (null asks for the default, which is what we have)."""
        self._calls.authenticate(target.exchange)
        name = changed_setting(what, await self._json_object(target), current)
        if name is not None:
            raise InvalidArgument(
                f"{what} setting '{name}' is fixed while the server runs; it is {current[name]!r}", param=name
            )

    # Shared memory

    async def regions(self, target: OipTarget) -> Reply:
        """The registered regions: none."""
        self._calls.authenticate(target.exchange)
        return Reply.json([])

    async def region(self, target: OipTarget) -> Reply:
        """The status of one region, which cannot exist."""
        self._calls.authenticate(target.exchange)
        raise no_region(target.model)

    async def register(self, target: OipTarget) -> Reply:
        """Refused: tensors come in the body."""
        self._calls.authenticate(target.exchange)
        raise InvalidArgument(
            "shared memory is not served; send tensors as binary data in the body", code="NOT_SERVED"
        )

    async def unregister(self, target: OipTarget) -> Reply:
        """Nothing is registered, so afterwards nothing is: 200."""
        self._calls.authenticate(target.exchange)
        return Reply.json({})

    # Bodies

    async def _parameters(self, target: OipTarget) -> dict[str, Any]:
        parameters = (await self._json_object(target)).get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidArgument("parameters must be an object", param="parameters")
        return parameters

    async def _json_object(self, target: OipTarget) -> dict[str, Any]:
        """The body as an object; no body is an empty one."""
        check_content_type(target.exchange)
        body = await self._bodies.read(target.exchange, target.receive)
        if not body.strip():
            return {}
        if len(body) > _MAX_CONTROL_BODY:
            raise InvalidArgument(f"the body of a control request has at most {_MAX_CONTROL_BODY} bytes")
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidArgument(f"the body is not valid JSON: {error.msg}", code="MALFORMED_JSON") from None
        if not isinstance(value, dict):
            raise InvalidArgument("the body must be a JSON object")
        return value
