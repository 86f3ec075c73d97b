"""The files of jobs: uploads on their way in, one folder for each job with its input and checkpoint, results.

<state>/incoming/<random>   an upload that is being read
<state>/work/<job>/         what the job works on; gone when the job has ended
<state>/results/<job>       the file that a job has made, if its kind makes one; see :mod:`.result_files`
<state>/folder-id           tells the folder from others, where several machines must have the same one
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from nonet.gateway.storage import storage_errors
from nonet.runtime.errors import Unavailable

__all__ = ["JobFiles", "new_job_id"]

_ABANDONED_AFTER = 3600.0
"""Seconds after which a file that belongs to nobody was left behind by a process that died."""


def new_job_id() -> str:
    """A name that no other job has."""
    return f"job_{secrets.token_hex(12)}"


class JobFiles:
    """Makes and removes files below the state folder. Folders are made when they are first needed.

    Args:
        root: the state folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._work = root / "work"
        self._results = root / "results"

    def identity(self) -> str:
        """A name of the state folder that no other folder has. Raises InsufficientStorage or Unavailable."""
        path = self._root / "folder-id"
        with storage_errors():
            self._root.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), path.open("x") as file:
                file.write(secrets.token_hex(16))
            name = path.read_text()
        if not name:
            raise Unavailable("the folder of the jobs is being made", code="JOBS_UNAVAILABLE")
        return name

    def incoming(self) -> Path:
        """Path of a new file for an upload. Raises InsufficientStorage or Unavailable."""
        with storage_errors():
            self._incoming.mkdir(parents=True, exist_ok=True)
        return self._incoming / secrets.token_hex(12)

    def folder(self, job: str) -> Path:
        """The folder of a job, which may not exist yet."""
        return self._work / job

    def make_folder(self, job: str) -> Path:
        """Make the folder of a job. Raises InsufficientStorage or Unavailable."""
        with storage_errors():
            self.folder(job).mkdir(parents=True)
        return self.folder(job)

    def remove(self, job: str) -> None:
        """Remove a job's folder, if it is there."""
        shutil.rmtree(self.folder(job), ignore_errors=True)

    def result(self, job: str) -> Path:
        """The file that a job has made, which may not exist."""
        return self._results / job

    def publish(self, job: str, file: Path) -> None:
        """Make a finished file, on the same disk, the result of a job: at once and whole. Raises OSError."""
        self._results.mkdir(parents=True, exist_ok=True)
        file.replace(self.result(job))

    def remove_result(self, job: str) -> None:
        """Remove the file that a job has made, if there is one."""
        _remove(self.result(job))

    def results(self) -> list[tuple[str, int]]:
        """The jobs that have made files, and how many bytes each has."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._results) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
        return found

    def sweep(self, needed: Collection[str]) -> None:
        """Remove what processes that died have left: folders of jobs that are not ``needed``, old uploads.

        What is young stays: a submit may be under way in another process.
        """
        before = time.time() - _ABANDONED_AFTER
        for folder in (self._incoming, self._work):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name not in needed and entry.stat(follow_symlinks=False).st_mtime < before:
                        _remove(Path(entry.path))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
