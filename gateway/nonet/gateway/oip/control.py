"""Control of the server through the Open Inference Protocol, for REST and gRPC alike.

Model repository: index, load, unload. Trace and log settings can be read, but not changed while the server
runs. Shared memory: no region exists and none can be registered.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.repository_control import RepositoryControl
from nonet.runtime.catalog import ModelState
from nonet.runtime.errors import InvalidArgument, NotFound, NotImplementedHere, PermissionDenied

__all__ = ["TRACE_SETTINGS", "ServerControl", "changed_setting", "log_settings", "no_region"]

logger = logging.getLogger(__name__)

TRACE_SETTINGS: dict[str, Any] = {
    "trace_level": ["OFF"],
    "trace_rate": "0",
    "trace_count": "0",
    "log_frequency": "0",
    "trace_mode": "opentelemetry",
}


class ServerControl:
    """What callers may see and change of the models that are loaded.

    Args:
        plane: the core.
        repository: the model repository, or None when there is none to control.
        allowed: whether callers may load and unload.
        how: how requests come ("over HTTP"), for the text of a refusal.
    """

    def __init__(
        self, plane: DataPlane, repository: RepositoryControl | None, *, allowed: bool, how: str
    ) -> None:
        self._plane = plane
        self._repository = repository
        self._allowed = allowed
        self._how = how

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """Name, version, state and reason of every version known, or only of those that can be called."""
        return [
            {"name": line.name, "version": line.version, "state": str(line.state), "reason": line.reason}
            for line in self._plane.catalog.index()
            if not only_ready or line.state is ModelState.READY
        ]

    def repository(self) -> RepositoryControl:
        """The repository. Raises PermissionDenied if callers may not change it, NotImplementedHere if there
        is none."""
        if not self._allowed:
            raise PermissionDenied(f"loading and unloading models {self._how} is switched off on this server")
        if self._repository is None:
            raise NotImplementedHere("this server has no model repository to load from")
        return self._repository

    async def load(self, name: str, config: str | None, tenant: str) -> None:
        """Load a model, or load it again; ``config`` (JSON) replaces its configuration. Raises as
        :meth:`repository` and :meth:`RepositoryControl.load`."""
        await self.repository().load(name, config, tenant=tenant)
        logger.info("model %s was loaded by request", name)

    async def unload(self, name: str, tenant: str) -> None:
        """Unload a model once the requests that use it are done. Raises as :meth:`load`."""
        await self.repository().unload(name, tenant=tenant)
        logger.info("model %s was unloaded by request", name)

    def trace_settings(self, model: str = "", version: str = "") -> dict[str, Any]:
        """The trace settings, of a model or ("") of the server. Raises NotFound for an unknown model."""
        if model:
            self._plane.catalog.info(model, version)
        return TRACE_SETTINGS


def log_settings() -> dict[str, bool | int | str]:
    """The log settings in force, by the names the protocol's logging extension gives them."""
    root = logging.getLogger("nonet")
    return {
        "log_file": "",
        "log_info": root.isEnabledFor(logging.INFO),
        "log_warning": root.isEnabledFor(logging.WARNING),
        "log_error": root.isEnabledFor(logging.ERROR),
        "log_verbose_level": int(root.isEnabledFor(logging.DEBUG)),
        "log_format": "default",
    }


def changed_setting(what: str, asked: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """The first of the settings asked for that would change something, or None.

    None as a value asks for the default, which is what the server has. Raises InvalidArgument for a name that
    is not known; ``what`` ("trace", "log") is for its text.
    """
    for name, value in asked.items():
        if name not in current:
            raise InvalidArgument(
                f"{what} setting {name[:80]!r} is not known; known: {', '.join(current)}", param=name[:80]
            )
        if value is not None and value != current[name]:
            return name
    return None


def no_region(name: str, param: str | None = None) -> NotFound:
    """What to raise for the status of a shared memory region: none exists."""
    return NotFound(f"there is no shared memory region {name[:80]!r}", code="REGION_NOT_FOUND", param=param)
