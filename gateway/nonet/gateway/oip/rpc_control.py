"""Control of the server over gRPC: the messages of model repository, trace, log and shared memory calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.oip.control import ServerControl, changed_setting, log_settings, no_region
from nonet.gateway.oip.rpc_inference import checked_name
from nonet.runtime.errors import InvalidArgument, NotImplementedHere
from nonet.runtime.oip.messages import message

__all__ = ["Control"]


class Control:
    """The handlers of the calls that control the server.

    Args:
        plane: the core.
        repository: the model repository, or None when there is none to control.
        allowed: whether callers may load and unload.
    """

    def __init__(
        self, plane: DataPlane, repository: RepositoryControl | None, *, allowed: bool = True
    ) -> None:
        self._control = ServerControl(plane, repository, allowed=allowed, how="by request")

    # Repository

    async def repository_index(self, request: Any, rpc: Rpc) -> Any:
        """Every version known, or with ``ready`` only those that can be called."""
        rpc.authenticate()
        models = self._control.index(only_ready=request.ready)
        return message("inference.RepositoryIndexResponse")(models=models)

    async def repository_model_load(self, request: Any, rpc: Rpc) -> Any:
        """Load a model, or load it again; the parameter ``config`` replaces its configuration."""
        tenant = self._controlled(rpc)
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
        await self._control.load(name, override, tenant)
        return message("inference.RepositoryModelLoadResponse")()

    async def repository_model_unload(self, request: Any, rpc: Rpc) -> Any:
        """Unload a model; requests that use it finish first."""
        tenant = self._controlled(rpc)
        name, _ = checked_name(request.model_name)
        for key, value in request.parameters.items():
            if key != "unload_dependents" or value.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidArgument(
                    f"parameters.{key[:80]!r} is not known; accepted: unload_dependents (true or false)",
                    param=f"parameters.{key[:80]}",
                )
        await self._control.unload(name, tenant)
        return message("inference.RepositoryModelUnloadResponse")()

    def _controlled(self, rpc: Rpc) -> str:
        """The tenant who wants to change the repository. Raises PermissionDenied or NotImplementedHere."""
        tenant = rpc.authenticate()
        self._control.repository()
        return tenant

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
            raise no_region(request.name, "name")
        return message(reply)()

    # Trace and log settings

    async def trace_setting(self, request: Any, rpc: Rpc) -> Any:
        """The trace settings. A change that changes nothing is accepted."""
        rpc.authenticate()
        current = self._control.trace_settings(
            *(checked_name(request.model_name) if request.model_name else ())
        )
        asked: dict[str, Any] = {}
        for name, setting in request.settings.items():
            given = list(setting.value)
            if given:
                asked[name] = given if name == "trace_level" or len(given) > 1 else given[0]
        _check_unchanged("trace", asked, current)
        reply = message("inference.TraceSettingResponse")()
        for name, value in current.items():
            reply.settings[name].value.extend([value] if isinstance(value, str) else value)
        return reply

    async def log_settings(self, request: Any, rpc: Rpc) -> Any:
        """The log settings. A change that changes nothing is accepted."""
        rpc.authenticate()
        current = log_settings()
        asked = {
            name: getattr(setting, choice)
            for name, setting in request.settings.items()
            if (choice := setting.WhichOneof("parameter_choice")) is not None
        }
        _check_unchanged("log", asked, current)
        reply = message("inference.LogSettingsResponse")()
        for name, value in current.items():
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(reply.settings[name], kind, value)
        return reply


def _check_unchanged(what: str, asked: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    name = changed_setting(what, asked, current)
    if name is not None:
        value = current[name]
        shown = " ".join(value) if isinstance(value, list) else str(value)
        raise NotImplementedHere(
            f"{what} setting '{name}' is fixed while the server runs; it is {shown!r}", param=name
        )
