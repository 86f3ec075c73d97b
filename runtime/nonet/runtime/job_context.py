"""The interface of a running job: its inputs, its folders, progress reports and publishing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ["JobContext"]


class JobContext(Protocol):
    """A job in its worker's process."""

    job: str
    tenant: str
    spec: Mapping[str, Any]
    folder: Path
    repository: Path
    threads: int

    def report(self, progress: float, phase: str) -> None: ...

    def input(self, name: str) -> Path: ...

    def publish(self, file: Path, facts: Path) -> None: ...

    def published(self) -> dict[str, Any] | None: ...
