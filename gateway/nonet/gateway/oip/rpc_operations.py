"""The calls of ``inference.GRPCInferenceService`` beside inference: messages to plain values and back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from nonet.gateway.core.shared_memory import checked_region
from nonet.gateway.grpc.rpc import Handler, Rpc
from nonet.gateway.oip.operations import Asked, Operations, checked_name
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import NotFound
from nonet.runtime.oip import description
from nonet.runtime.oip.messages import OPEN_INFERENCE, Method, message, methods

Run = Callable[[Asked], Any]
Shape = Callable[[Any], dict[str, Any]]


def operation_handlers(server: Operations, described: Catalog | None) -> dict[str, Handler]:
    """The handler of each call, by the name of its method.

    Args:
        server: what is asked.
        described: the models whose configuration carries the description that a gateway needs to use this
            process as a remote service; None where it does not.
    """

    def config(asked: Asked) -> Any:
        config = server.config(asked)
        if described is not None:
            text = description.to_json(described.info(asked.model, asked.version))
            own = {description.PARAMETER: {"string_value": text}}
            config["parameters"] = {**config.get("parameters", {}), **own}
        return config

    runs: dict[str, tuple[Run, Shape]] = {
        "ServerLive": (server.live, dict),
        "ServerReady": (server.ready, dict),
        "ServerMetadata": (server.server_metadata, dict),
        "ModelReady": (server.model_ready, dict),
        "ModelMetadata": (server.metadata, dict),
        "ModelConfig": (config, lambda config: {"config": config}),
        "ModelStatistics": (server.statistics, dict),
        "RepositoryIndex": (server.index, lambda models: {"models": models}),
        "RepositoryModelLoad": (server.load, _nothing),
        "RepositoryModelUnload": (server.unload, _nothing),
        "TraceSetting": (server.trace, _trace_settings),
        "LogSettings": (server.log, _log_settings),
        "SystemSharedMemoryStatus": (server.regions, _regions),
        "SystemSharedMemoryRegister": (server.register, _nothing),
        "SystemSharedMemoryUnregister": (server.unregister, _nothing),
        "CudaSharedMemoryStatus": (server.no_regions, _nothing),
        "CudaSharedMemoryRegister": (server.no_register, _nothing),
        "CudaSharedMemoryUnregister": (server.no_unregister, _nothing),
    }
    handlers: dict[str, Handler] = {
        method.name: functools.partial(_answer, method, *runs[method.name])
        for method in methods(OPEN_INFERENCE)
        if method.name in runs
    }
    return {**handlers, "ModelReady": functools.partial(_known_and_ready, handlers["ModelReady"])}


async def _known_and_ready(asking: Handler, request: Any, rpc: Rpc) -> Any:
    """A model that nobody knows is not ready, as with Triton."""
    try:
        return await asking(request, rpc)
    except NotFound:
        return message("inference.ModelReadyResponse")(ready=False)


async def _answer(method: Method, run: Run, shape: Shape, request: Any, rpc: Rpc) -> Any:
    tenant = "" if method.name in ("ServerLive", "ServerReady") else rpc.authenticate()
    name = getattr(request, "model_name", "") or getattr(request, "name", "")
    region = ""
    sent: dict[str, Any] = {}
    if method.name == "TraceSetting":
        sent = {key: _trace_value(key, setting) for key, setting in request.settings.items() if setting.value}
    elif method.name == "LogSettings":
        sent = _values(request.settings)
    elif method.name == "RepositoryIndex":
        sent = {"ready": request.ready}
    elif method.name.startswith("RepositoryModel"):
        sent = {"parameters": _values(request.parameters)}
    elif "SharedMemory" in method.name:
        name, region = "", name and checked_region(name)
        if method.name == "SystemSharedMemoryRegister":
            sent = {"key": request.key, "offset": request.offset, "byte_size": request.byte_size}
    answer = run(Asked(*checked_name(name, getattr(request, "version", "")), region, sent, tenant))
    if inspect.isawaitable(answer):
        answer = await answer
    return json_format.ParseDict(shape(answer), method.response(), ignore_unknown_fields=True)


def _values(parameters: Any) -> dict[str, Any]:
    """The values that are set."""
    return {
        name: getattr(value, choice)
        for name, value in parameters.items()
        if (choice := value.WhichOneof("parameter_choice")) is not None
    }


def _trace_value(name: str, setting: Any) -> Any:
    """As JSON has it: one value alone, but for the one setting that is a list."""
    values = list(setting.value)
    return values if name == "trace_level" or len(values) > 1 else values[0]


def _trace_settings(settings: Any) -> dict[str, Any]:
    lists = {name: [value] if isinstance(value, str) else value for name, value in settings.items()}
    return {"settings": {name: {"value": value} for name, value in lists.items()}}


def _log_settings(settings: Any) -> dict[str, Any]:
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    return {"settings": {name: {kinds[type(value)]: value} for name, value in settings.items()}}


def _regions(regions: Any) -> dict[str, Any]:
    return {"regions": {region["name"]: region for region in regions}}


def _nothing(_: Any) -> dict[str, Any]:
    return {}
