"""A model version that another process serves, as the catalog holds it."""

from __future__ import annotations

from collections.abc import Sequence

from nonet.gateway.executor.contract import BackendCrashed
from nonet.runtime.errors import Internal
from nonet.runtime.requests import InferRequest, Outcome
from nonet.runtime.servable import ModelInfo


class RemoteServable:
    """A model version that another process serves: only its description is here."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        """Raises BackendCrashed: a device sends the batch; this process cannot run it."""
        raise BackendCrashed(f"model '{self._info.name}' does not run in this process")

    def sample_request(self, rows: int) -> InferRequest:
        """Raises Internal: the service measures its own models."""
        raise Internal(f"model '{self._info.name}' does not run in this process")

    def warm_up(self) -> None:
        """Nothing: the service has warmed up before it said it was ready."""

    def close(self) -> None:
        """Nothing is held here."""
