"""What a gateway with a topology says of a task whose service it has not, or cannot reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nonet.gateway.executor import Device
from nonet.runtime.errors import NotImplementedHere, ServingError, Unavailable
from nonet.runtime.task import Service


def service_absence(
    services: Mapping[str, Service], devices: Sequence[Device], task: str
) -> ServingError | None:
    """What a caller of a task that has no model is told, or None if its service is there and lacks a model.

    NotImplementedHere (``SERVICE_NOT_IN_TOPOLOGY``) if the topology names no service for the task,
    Unavailable (``SERVICE_UNREACHABLE``) if it does and none answers.

    Args:
        services: all that are installed, by name.
        devices: those of the topology; their groups are the services it names, or a server's own name.
        task: what is asked for.
    """
    name = next((name for name, each in services.items() if any(task == own.name for own in each.tasks)), "")
    replicas = [device for device in devices if device.group == name]
    # A server with a name of its own may have models of any service.
    replicas = replicas or [device for device in devices if device.group not in services]
    if not replicas:
        return NotImplementedHere(
            f"the service {name or task} is not part of this deployment: the gateway's topology file "
            "does not name it",
            param="model",
            code="SERVICE_NOT_IN_TOPOLOGY",
        )
    if not any(device.healthy for device in replicas):
        return Unavailable(
            f"the service {name} does not answer the gateway; retry later",
            param="model",
            code="SERVICE_UNREACHABLE",
            retry_after=5.0,
        )
    return None
