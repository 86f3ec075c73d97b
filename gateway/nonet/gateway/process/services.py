"""Finds the services that are installed; the only module of the gateway that imports them.

Every folder of the namespace ``nonet.services`` with a module ``task`` is a service; what it offers is that
module's ``SERVICE``. A folder on the path of another distribution, or of a test, is found like the
project's own.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping

from nonet.gateway.process.service_names import NAMESPACE, service_names
from nonet.runtime.oip.messages import add_descriptors
from nonet.runtime.task import Service, Task, Work


@functools.cache
def installed_services() -> Mapping[str, Service]:
    """Each service by name, in the order of their names. Raises ValueError for two tasks with one path or
    method."""
    found: dict[str, Service] = {}
    for name in service_names():
        service: Service = importlib.import_module(f"{NAMESPACE}.{name}.task").SERVICE
        if service.descriptors:
            add_descriptors(service.descriptors)
        found[service.name] = service
    _check_apart([task for service in found.values() for task in service.tasks])
    return found


def works() -> Mapping[str, tuple[Task, Work]]:
    """The tasks whose requests become jobs, and that work, by the kind of the jobs."""
    return {
        task.work.kind: (task, task.work)
        for service in installed_services().values()
        for task in service.tasks
        if task.work is not None
    }


def _check_apart(tasks: list[Task]) -> None:
    for names in ([task.path for task in tasks], [task.rpc for task in tasks]):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"more than one task answers {', '.join(sorted(twice))}")
