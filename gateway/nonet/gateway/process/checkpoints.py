"""Checkpoints of other libraries that the operator of a service names: opened at the start, beside what the
repository holds, and served until the end."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from nonet.gateway.process.service_names import NAMESPACE
from nonet.gateway.process.services import installed_services
from nonet.gateway.process.start_error import StartError
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ModelRefused, ServingError
from nonet.runtime.task import ServiceLimits

__all__ = ["Checkpoint", "open_into"]

logger = logging.getLogger(__name__)

Checkpoint = tuple[str, Path, str]
"""Name for callers, folder, and the device on which it runs."""


def open_into(catalog: Catalog, service: str, checkpoint: Checkpoint, limits: ServiceLimits) -> None:
    """Open a checkpoint by the service's opener, run it once and publish it; blocking, for minutes if it is
    large.

    Raises StartError if the service takes none, or this one is refused.
    """
    name, folder, device = checkpoint
    opener = installed_services()[service].opener
    if not opener:
        raise StartError(f"--checkpoint: the service {service} ({NAMESPACE}.{service}) takes no checkpoints")
    module, _, function = opener.partition(":")
    logger.info("opening the checkpoint %s in %s on %s", name, folder, device)
    try:
        servable = getattr(importlib.import_module(module), function)(name, folder, device, limits)
        servable.warm_up()
    except ModelRefused as refused:
        raise StartError(f"--checkpoint {name}: {refused.reason}") from None
    except ServingError as error:
        raise StartError(f"--checkpoint {name} cannot be run: {error.message}") from None
    catalog.publish(servable)
