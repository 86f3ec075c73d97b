"""What the function that does a job is given: the job's input and folder, and how to report and publish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ["JobContext"]


class JobContext(Protocol):
    """One job in the process of its worker.

    Attributes:
        job: id of the job.
        kind: which work it is, e.g. ``models.fit``.
        tenant: whose job it is, "" when keys are off.
        spec: what the submit said, JSON-able.
        folder: holds the input files (:meth:`input`); checkpoints go there too. Gone when the job has ended.
        repository: the model repository: models are read from it, and published there.
        threads: CPU threads that the work may use.
    """

    job: str
    kind: str
    tenant: str
    spec: Mapping[str, Any]
    folder: Path
    repository: Path
    threads: int

    def report(self, progress: float, phase: str, partial: Mapping[str, Any] | None = None) -> None:
        """Say how far the work is (0 to 1), what is being done, and what was found so far: JSON-able, whole
        each time, None for what was said last. Cheap: call it as often as you like; callers see the newest
        ``partial`` of each half second, and none of more than 64 KiB.

        Raises an exception, which is to be passed on, when the work is to end.
        """
        ...

    def input(self, name: str) -> Path:
        """Path of an input file. Raises Internal (``JOB_FILES_MISSING``) if it is not there."""
        ...

    def publish(self, file: Path, facts: Path) -> None:
        """Make a finished file of the folder what callers fetch when the job has succeeded; its ``result`` is
        to name it as ``file``. ``facts``, a JSON object in a file of the folder, goes with it, for
        :meth:`published`. Raises OSError."""
        ...

    def published(self) -> dict[str, Any] | None:
        """The facts of the file that an earlier attempt has published, None if none has. To be asked before
        :meth:`input`: a store that went back to an earlier moment has a job run again that had succeeded, and
        whose folder is gone. Raises OSError."""
        ...
