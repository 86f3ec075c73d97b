"""What a gateway lends to the handlers of a service: the models that are ready, and a way to remove one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nonet.runtime.servable import ModelInfo

__all__ = ["Host"]


class Host(Protocol):
    """What a gateway lends to the handlers of a service."""

    @property
    def repository(self) -> Path:
        """Folder of the model repository."""
        ...

    def models(self, task: str) -> Sequence[ModelInfo]:
        """The newest ready version of each service of a task, by name."""
        ...

    def model(self, name: str) -> ModelInfo | None:
        """The newest ready version of a service, or None."""
        ...

    def versions(self, name: str) -> Sequence[str]:
        """The ready versions of a service."""
        ...

    async def refresh(self) -> None:
        """Bring what is ready up to date with the repository, at most every half second."""
        ...

    async def remove(self, kind: str, subject: str, tenant: str) -> None:
        """Remove the model that jobs of a kind publish for a subject, with all its versions.

        Raises PermissionDenied where models cannot be changed or for another tenant's, NotImplementedHere
        where another process keeps them, Conflict (``MODEL_BUSY``) while a job of it waits or runs,
        LookupError if there is none.
        """
        ...
