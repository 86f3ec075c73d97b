"""What the folder of a service in a Triton repository tells the model that runs in it."""

from __future__ import annotations

import json

from nonet.runtime.oip import description
from nonet.runtime.servable import ModelInfo

__all__ = ["LIMITS", "NETWORK_FILE", "SERVICE", "network_from_json", "network_to_json"]

SERVICE = "nonet.service"
"""Parameter of the configuration: the service's name, e.g. ``NAME`` of ``nonet.services.NAME``."""

LIMITS = "nonet.limits"
"""Parameter of the configuration: the :class:`~nonet.runtime.task.ServiceLimits`, JSON."""

NETWORK_FILE = "network.json"
"""File in the version's folder: what is known of the network that the service wraps."""


def network_to_json(info: ModelInfo) -> str:
    """The content of :data:`NETWORK_FILE`."""
    return json.dumps({"info": description.to_json(info), "config": dict(info.config)})


def network_from_json(text: str) -> ModelInfo:
    """The inverse of :func:`network_to_json`. Raises InvalidArgument, KeyError or a ValueError for another
    text."""
    found = json.loads(text)
    return description.from_json(found["info"], found["config"])
