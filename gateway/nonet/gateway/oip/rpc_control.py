"""The parts of ``inference.GRPCInferenceService`` that change the server, and those that other servers have
and we answer plainly.

Model repository: index, load, unload. Trace and log settings are read as they are and cannot be changed while
serving. Shared memory: there are no regions, and none can be registered.
"""

from __future__ import annotations

import logging
from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.oip.rpc_inference import checked_name
from nonet.runtime.catalog import ModelState
from nonet.runtime.errors import InvalidArgument, NotFound, NotImplementedHere, PermissionDenied
from nonet.runtime.oip.messages import message

__all__ = ["Control"]

logger = logging.getLogger(__name__)

_TRACE_SETTINGS: dict[str, tuple[str, ...]] = {
    "trace_level": ("OFF",),
    "trace_rate": ("0",),
    "trace_count": ("0",),
    "log_frequency": ("0",),
    "trace_mode": ("opentelemetry",),
}


class Control:
    """See the module's text.

    Args:
        plane: the core.
        repository: the model repository, or None when there is none to control.
        allowed: whether callers may load and unload.
    """

    def __init__(
        self, plane: DataPlane, repository: RepositoryControl | None, *, allowed: bool = True
    ) -> None:
        self._plane = plane
        self._repository = repository
        self._allowed = allowed

    # Repository

    async def repository_index(self, request: Any, rpc: Rpc) -> Any:
        """Every version known, or with ``ready`` only those that can be called."""
        rpc.authenticate()
        reply = message("inference.RepositoryIndexResponse")()
        for line in self._plane.catalog.index():
            if not request.ready or line.state is ModelState.READY:
                reply.models.add(
                    name=line.name, version=line.version, state=str(line.state), reason=line.reason
                )
        return reply

    async def repository_model_load(self, request: Any, rpc: Rpc) -> Any:
        """Load a model, or load it again; the parameter ``config`` replaces its configuration."""
        repository, tenant = self._controlled(rpc)
        name, _ = checked_name(request.model_name)
        override: str | None = None
        for key, value in request.parameters.items():
            if key == "config" and value.WhichOneof("parameter_choice") == "string_param":
                override = value.string_param
            elif key.startswith("file:"):
                raise NotImplementedHere(
                    "models are not taken over gRPC; publish the version into the repository and load it",
                    param=f"parameters.{key[:80]}",
                )
            else:
                raise InvalidArgument(
                    f"parameters.{key[:80]!r} is not known; accepted: config (the configuration as JSON)",
                    param=f"parameters.{key[:80]}",
                )
        await repository.load(name, override, tenant=tenant)
        logger.info("model %s was loaded by request", name)
        return message("inference.RepositoryModelLoadResponse")()

    async def repository_model_unload(self, request: Any, rpc: Rpc) -> Any:
        """Unload a model; requests that use it finish first."""
        repository, tenant = self._controlled(rpc)
        name, _ = checked_name(request.model_name)
        for key, value in request.parameters.items():
            if key != "unload_dependents" or value.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidArgument(
                    f"parameters.{key[:80]!r} is not known; accepted: unload_dependents (true or false)",
                    param=f"parameters.{key[:80]}",
                )
        await repository.unload(name, tenant=tenant)
        logger.info("model %s was unloaded by request", name)
        return message("inference.RepositoryModelUnloadResponse")()

    def _controlled(self, rpc: Rpc) -> tuple[RepositoryControl, str]:
        """The repository, and the tenant who wants to change it."""
        tenant = rpc.authenticate()
        if not self._allowed:
            raise PermissionDenied("loading and unloading models by request is switched off on this server")
        if self._repository is None:
            raise NotImplementedHere("this server has no model repository to load from")
        return self._repository, tenant

    # Shared memory

    async def system_shared_memory_status(self, request: Any, rpc: Rpc) -> Any:
        return self._no_regions(request, rpc, "inference.SystemSharedMemoryStatusResponse")

    async def cuda_shared_memory_status(self, request: Any, rpc: Rpc) -> Any:
        return self._no_regions(request, rpc, "inference.CudaSharedMemoryStatusResponse")

    async def shared_memory_register(self, request: Any, rpc: Rpc) -> Any:
        """Refused: tensors come in the message."""
        rpc.authenticate()
        raise NotImplementedHere("shared memory is not served; send tensors in the message")

    async def system_shared_memory_unregister(self, request: Any, rpc: Rpc) -> Any:
        """Nothing is registered, so afterwards nothing is."""
        rpc.authenticate()
        return message("inference.SystemSharedMemoryUnregisterResponse")()

    async def cuda_shared_memory_unregister(self, request: Any, rpc: Rpc) -> Any:
        """Nothing is registered, so afterwards nothing is."""
        rpc.authenticate()
        return message("inference.CudaSharedMemoryUnregisterResponse")()

    def _no_regions(self, request: Any, rpc: Rpc, reply: str) -> Any:
        rpc.authenticate()
        if request.name:
            raise NotFound(
                f"there is no shared memory region {request.name[:80]!r}",
                code="REGION_NOT_FOUND",
                param="name",
            )
        return message(reply)()

    # Trace and log settings

    async def trace_setting(self, request: Any, rpc: Rpc) -> Any:
        """The trace settings. A change that changes nothing is accepted."""
        rpc.authenticate()
        if request.model_name:
            self._plane.catalog.info(*checked_name(request.model_name))
        for name, setting in request.settings.items():
            given = tuple(setting.value)
            if given and given != _fixed(name, _TRACE_SETTINGS, "trace"):
                raise _unchangeable("trace", name, " ".join(_TRACE_SETTINGS[name]))
        reply = message("inference.TraceSettingResponse")()
        for name, values in _TRACE_SETTINGS.items():
            reply.settings[name].value.extend(values)
        return reply

    async def log_settings(self, request: Any, rpc: Rpc) -> Any:
        """The log settings. A change that changes nothing is accepted."""
        rpc.authenticate()
        current = _log_settings()
        for name, setting in request.settings.items():
            choice = setting.WhichOneof("parameter_choice")
            if choice is not None and getattr(setting, choice) != _fixed(name, current, "log"):
                raise _unchangeable("log", name, str(current[name]))
        reply = message("inference.LogSettingsResponse")()
        for name, value in current.items():
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(reply.settings[name], kind, value)
        return reply


def _fixed(name: str, settings: dict[str, Any], what: str) -> Any:
    if name not in settings:
        raise InvalidArgument(
            f"{what} setting {name[:80]!r} is not known; known: {', '.join(settings)}", param=name[:80]
        )
    return settings[name]


def _unchangeable(what: str, name: str, value: str) -> NotImplementedHere:
    return NotImplementedHere(
        f"{what} setting '{name}' is fixed while the server runs; it is {value!r}", param=name
    )


def _log_settings() -> dict[str, bool | int | str]:
    root = logging.getLogger("nonet")
    return {
        "log_file": "",
        "log_info": root.isEnabledFor(logging.INFO),
        "log_warning": root.isEnabledFor(logging.WARNING),
        "log_error": root.isEnabledFor(logging.ERROR),
        "log_verbose_level": int(root.isEnabledFor(logging.DEBUG)),
        "log_format": "default",
    }
