"""The data plane of a process: it knows what else than models and devices the process needs to be ready."""

from __future__ import annotations

from nonet.gateway.core.data_plane import DataPlane

__all__ = ["ServingPlane"]


class ServingPlane(DataPlane):
    """A data plane that can be taken out of rotation before it stops accepting."""

    leaving = False
    """True from the first signal on: readiness says no, requests are still served."""

    storage_trouble = False
    """Whether the folder of the jobs cannot be written: readiness says no, requests are still served."""

    def why_unready(self) -> str:
        if self.leaving:
            return "it is shutting down"
        if self.storage_trouble:
            return "the folder of its jobs cannot be written"
        return super().why_unready()
