"""One worker process: its limits, its log, its job."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from nonet.jobs.files import JobFiles
from nonet.jobs.store_address import StoreAddress
from nonet.jobs.worker import Assignment, Kind, run_job

__all__ = ["Conditions", "run_one", "say_kinds"]


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """What the options of ``nonet worker`` say."""

    state: Path
    job: str
    owner: str
    parent: int = 0
    lease_seconds: float = 15.0
    stop_seconds: float = 10.0
    memory_bytes: int = 0
    nice: int = 0
    log_format: str = "text"


def say_kinds(kinds: Mapping[str, Kind], also: Mapping[str, str] | None = None) -> None:
    """Print what can be worked on: kind -> what has to be installed first, "" if nothing; and ``also``, the
    same of what else jobs may need, each a word with a colon."""
    print(json.dumps({**{name: kind.missing() for name, kind in kinds.items()}, **(also or {})}))


def run_one(kinds: Mapping[str, Kind], repository: Path, conditions: Conditions) -> int:
    """Run the job of ``conditions`` within its limits; returns the exit status."""
    _set_up_logging(conditions.log_format)
    if conditions.nice:
        with contextlib.suppress(OSError):
            os.nice(conditions.nice)
    if conditions.memory_bytes:
        # Private writable memory; what is only reserved, as engines do, does not count.
        resource.setrlimit(resource.RLIMIT_DATA, (conditions.memory_bytes, conditions.memory_bytes))
    store = StoreAddress.from_environment().open(conditions.state)
    try:
        return run_job(
            store,
            JobFiles(conditions.state),
            kinds,
            repository,
            Assignment(
                conditions.job,
                conditions.owner,
                conditions.lease_seconds,
                conditions.stop_seconds,
                conditions.parent,
            ),
        )
    finally:
        store.close()


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
