"""The files of jobs: uploads on their way in, one folder for each job with its input and checkpoint, results.

<state>/incoming/<random>   an upload that is being read
<state>/work/<job>/         what the job works on; gone when the job has ended
<state>/results/<job>       the file that a job has made, if its kind makes one; see :mod:`.result_files`
<state>/results/<job>.json  what the job's result says of that file; there before it, gone with it
<state>/folder-id           tells the folder from others, where several machines must have the same one
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nonet.jobs.job import JobState
from nonet.runtime.errors import Unavailable
from nonet.runtime.storage_errors import storage_errors

_UPLOADS_AT_ONCE = 256
"""Uploads between their first byte and their job; what they take is counted where they arrive."""
_UPLOAD_LEFT_AFTER = 3600.0
_FOLDER_LEFT_AFTER = 86400.0
"""Seconds after which what belongs to nobody was left behind by a process that died."""
_FACTS = ".json"


def new_job_id() -> str:
    """A name that no other job has."""
    return f"job_{secrets.token_hex(12)}"


class KeptResult(NamedTuple):
    """What a job has made: the bytes that it takes, and when it was written, in seconds since the epoch."""

    job: str
    size: int
    written: float


class JobFiles:
    """Makes and removes files below the state folder. Folders are made when they are first needed.

    Args:
        root: the state folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._proved = False
        self._incoming = root / "incoming"
        self._work = root / "work"
        self._results = root / "results"
        self._uploads = 0

    def unwritable(self) -> str:
        """Why nothing can be written into the state folder, "" if it can be. A full disk is no reason: it
        passes, and who meets it is told."""
        if os.access(self.root, os.W_OK | os.X_OK) and self.root.is_dir() and self._proved:
            return ""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                self._proved = True
        except OSError as error:
            self._proved = False
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return (error.strerror or type(error).__name__).lower()
        return ""

    def identity(self) -> str:
        """A name of the state folder that no other folder has. Raises InsufficientStorage or Unavailable."""
        path = self.root / "folder-id"
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), path.open("x") as file:
                file.write(secrets.token_hex(16))
            name = path.read_text()
        if not name:
            raise Unavailable("the folder of the jobs is being made", code="JOBS_UNAVAILABLE")
        return name

    @contextlib.contextmanager
    def receiving(self) -> Iterator[Path]:
        """Path of a new file for an upload, which is removed at the end of the block.

        Raises Unavailable while too many others arrive, InsufficientStorage when the disk is full.
        """
        if self._uploads >= _UPLOADS_AT_ONCE:
            raise Unavailable("too many uploads arrive at the same time; retry later", retry_after=5.0)
        with storage_errors():
            self._incoming.mkdir(parents=True, exist_ok=True)
        path = self._incoming / secrets.token_hex(12)
        self._uploads += 1
        try:
            yield path
        finally:
            self._uploads -= 1
            _remove(path)

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

    def settle(self, job: str, state: JobState) -> None:
        """Remove what a job in ``state`` needs no more: its folder when it has ended, and what it has made
        unless it succeeded."""
        if state.ended:
            self.remove(job)
        if state in (JobState.FAILED, JobState.CANCELLED):
            self.remove_result(job)

    def result(self, job: str) -> Path:
        """The file that a job has made, which may not exist."""
        return self._results / job

    def publish(self, job: str, file: Path, facts: Path) -> None:
        """Make a finished file the result of a job, at once and whole, after the JSON object that says what
        is to be known of it; both on the same disk. Raises OSError."""
        self._results.mkdir(parents=True, exist_ok=True)
        facts.replace(self._facts(job))
        file.replace(self.result(job))

    def published(self, job: str) -> dict[str, Any] | None:
        """The facts of the result of a job, None if it has none. Raises OSError."""
        try:
            facts: dict[str, Any] = json.loads(self._facts(job).read_bytes())
        except FileNotFoundError:
            return None
        return facts if self.result(job).is_file() else None

    def remove_result(self, job: str) -> None:
        """Remove the file that a job has made and its facts, if there are any."""
        _remove(self.result(job))
        _remove(self._facts(job))

    def _facts(self, job: str) -> Path:
        return self._results / f"{job}{_FACTS}"

    def results(self) -> list[KeptResult]:
        """What the jobs have made, each file together with its facts."""
        found: dict[str, KeptResult] = {}
        with contextlib.suppress(OSError), os.scandir(self._results) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    job, stat = entry.name.removesuffix(_FACTS), entry.stat(follow_symlinks=False)
                    other = found.get(job, KeptResult(job, 0, 0.0))
                    found[job] = KeptResult(job, other.size + stat.st_size, max(other.written, stat.st_mtime))
        return list(found.values())

    def sweep(self, needed: Collection[str], now: float) -> None:
        """Remove what processes that died have left: folders of jobs that are not ``needed``, old uploads.

        What is young at ``now`` stays: a submit may be under way in another process.
        """
        for folder, seconds in ((self._incoming, _UPLOAD_LEFT_AFTER), (self._work, _FOLDER_LEFT_AFTER)):
            before = now - seconds
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
