"""The Ray Serve application of a service: what ``import_path`` in a configuration of Ray Serve names.

Imported on the nodes of a Ray cluster only, in an environment that has Ray beside Nonet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic
import ray
from ray import serve

from nonet.gateway.process.service_names import service_names
from nonet.gateway.ray_serve.replica import RayReplica, Reply
from nonet.gateway.settings.loader import load_settings
from nonet.runtime.oip.messages import OPEN_INFERENCE, methods


class Arguments(pydantic.BaseModel, extra="forbid"):
    """What ``args`` of an application may say.

    Args:
        service: name of a service.
        repository: folder of the models, the same on every node.
        config: file of settings on every node, like ``--config``; None for none.
        settings: section -> field -> value, over those of the file and the environment.
    """

    service: str
    repository: Path
    config: Path | None = None
    settings: dict[str, dict[str, Any]] = {}


class Service:
    """A replica as Ray makes it: its methods are those of the Open Inference Protocol, which are added below
    the class."""

    async def __init__(self, arguments: Arguments) -> None:  # type: ignore[misc]  # Ray awaits it
        given = {section: dict(fields) for section, fields in arguments.settings.items()}
        given.setdefault("repository", {})["path"] = arguments.repository
        # As many executions side by side as the replica was given processors, not as many as the node has.
        processors = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
        given.setdefault("scheduler", {}).setdefault("lanes", max(1, int(processors)))
        self.replica = RayReplica(arguments.service, load_settings(arguments.config, given))
        await self.replica.start()

    def check_health(self) -> None:
        """Ray replaces the replica where this raises."""
        self.replica.check()


def _unary(name: str) -> Callable[[Service, bytes, Any], Awaitable[Reply]]:
    async def call(self: Service, message: bytes, grpc_context: Any) -> Reply:
        return await self.replica.unary(name, message, grpc_context)

    return call


def _stream(name: str) -> Callable[[Service, AsyncIterator[bytes], Any], AsyncIterator[Reply]]:
    async def call(self: Service, messages: AsyncIterator[bytes], grpc_context: Any) -> AsyncIterator[Reply]:
        async for reply in self.replica.stream(name, messages, grpc_context):
            yield reply

    return call


for _method in methods(OPEN_INFERENCE):
    setattr(Service, _method.name, (_stream if _method.client_streaming else _unary)(_method.name))


def application(args: Mapping[str, Any]) -> serve.Application:
    """The application of one service; see :class:`Arguments`. The deployment is called ``service``, and its
    number of replicas, processors and shares of a GPU are set in the configuration.

    Raises ValueError for arguments that are not accepted.
    """
    arguments = Arguments(**args)
    if arguments.service not in (known := service_names()):
        raise ValueError(f"unknown service '{arguments.service}'; known: {', '.join(known)}")
    deployment = serve.deployment(name="service", max_ongoing_requests=64)(Service)
    return deployment.bind(arguments)
