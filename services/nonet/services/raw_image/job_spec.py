"""The job that develops a capture: its kind, and what its worker needs to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nonet.runtime.requests import Parameter

__all__ = ["CAPTURE", "KIND", "DevelopSpec"]

KIND = "raw.develop"
"""Kind of the job."""
CAPTURE = "capture"
"""The capture of a development, in its job's folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class DevelopSpec:
    """What a worker needs to know of a development beside the capture; JSON-able by ``dataclasses.asdict``.

    Args:
        network, version: what develops it.
        content: sha256 over what decides the network's answers; another content is another network.
        engine, precision: what the network runs with where the request would have been answered.
        parameters: of the service.
        pixels: largest capture.
    """

    network: str
    version: str
    content: str
    engine: str
    precision: str
    parameters: Mapping[str, Parameter]
    pixels: int

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> DevelopSpec:
        """The spec of a job, read back."""
        return cls(**spec)
