"""One worker process: its limits, its log, its job."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from nonet.jobs.files import JobFiles
from nonet.jobs.store_address import StoreAddress
from nonet.jobs.worker import Assignment, missing, run_job
from nonet.runtime.task import Work

__all__ = ["run_one", "say_kinds"]


def say_kinds(works: Mapping[str, Work], also: Mapping[str, str] | None = None) -> None:
    """Print what can be worked on: kind -> what has to be installed first, "" if nothing; and ``also``, the
    same of what else jobs may need, each a word with a colon."""
    print(json.dumps({**{kind: missing(work) for kind, work in works.items()}, **(also or {})}))


def run_one(
    works: Mapping[str, Work], state: Path, repository: Path, assignment: Assignment, log_format: str = "text"
) -> int:
    """Run the job of ``assignment`` within its limits; returns the exit status."""
    _set_up_logging(log_format)
    if assignment.nice:
        with contextlib.suppress(OSError):
            os.nice(assignment.nice)
    if assignment.memory_bytes:
        # Private writable memory; what is only reserved, as engines do, does not count.
        resource.setrlimit(resource.RLIMIT_DATA, (assignment.memory_bytes, assignment.memory_bytes))
    with contextlib.closing(StoreAddress.from_environment().open(state)) as store:
        return run_job(store, JobFiles(state), works, repository, assignment)


def _set_up_logging(form: str) -> None:
    """Write to standard error as the gateway does, which is where it goes."""
    if form == "json":
        from nonet.gateway.http import JsonFormatter

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    else:
        text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=text, datefmt="%H:%M:%S")
