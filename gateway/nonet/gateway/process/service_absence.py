"""What a gateway with a topology says of a task whose service it has not, or cannot reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from nonet.gateway.executor import Device
from nonet.runtime.errors import NotImplementedHere, ServingError, Unavailable
from nonet.runtime.task import Service


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceAbsence:
    """Answers, when called with a task that has no model, what is missing.

    Args:
        services: all that are installed, by name.
        devices: those of the topology; their groups are the services it names.
    """

    services: Mapping[str, Service]
    devices: Sequence[Device]

    def __call__(self, task: str) -> ServingError | None:
        """What a caller is told, or None if the service is there and lacks a model.

        NotImplementedHere (``SERVICE_NOT_IN_TOPOLOGY``) if the topology names no service for the task,
        Unavailable (``SERVICE_UNREACHABLE``) if it does and none answers.
        """
        name = next((name for name, each in self.services.items() if task in _tasks(each)), "")
        replicas = [device for device in self.devices if device.group == name]
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


def _tasks(service: Service) -> set[str]:
    return {task.name for task in service.tasks}
