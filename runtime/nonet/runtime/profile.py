"""Measured latencies, and where they are kept: one file per machine and model content in the user's cache.

An engine other than the default is used only where such a file says that it was measured on this very
machine, with this very model and engine version, and that its answers were right.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nonet.runtime.errors import ServingError
from nonet.runtime.hardware import machine_fingerprint
from nonet.runtime.servable import Servable

_DIGEST = re.compile(r"[0-9a-f]{64}")


class EngineProfile(BaseModel):
    """What was measured of one engine and precision.

    ``latencies``: seconds per execution by batch size. ``accepted`` with ``reason``: whether its answers may
    be served. ``error``: largest relative difference from fp32 ONNX Runtime on the check set;
    ``batch_error``: largest relative difference between an item alone and in a batch; None if not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    engine_version: str
    precision: str
    latencies: dict[int, float] = Field(default_factory=dict)
    accepted: bool = False
    reason: str = ""
    error: float | None = None
    batch_error: float | None = None


class ModelProfile(BaseModel):
    """All engines measured for one model content on one machine; ``chosen`` is an index into ``engines``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    version: str
    content: str
    machine: str
    created: str
    threads: int
    chosen: int
    engines: tuple[EngineProfile, ...]

    @property
    def choice(self) -> EngineProfile:
        return self.engines[self.chosen]


class ProfileStore:
    """Profiles of this machine on disk.

    Args:
        root: folder of the cache; by default ``$NONET_CACHE``, else ``nonet`` in the user's cache folder.
        machine: fingerprint of the machine; by default this one's.
    """

    def __init__(self, root: Path | None = None, machine: str | None = None) -> None:
        self._machine = machine or machine_fingerprint()
        self._folder = (root or cache_folder()) / "profiles" / self._machine

    @property
    def machine(self) -> str:
        return self._machine

    def read(self, content: str) -> ModelProfile | None:
        """The profile of a model content (sha256 hex), or None if there is none that can be trusted."""
        try:
            profile = ModelProfile.model_validate_json(self._path(content).read_bytes())
        except (OSError, ValidationError):
            return None
        sound = profile.content == content and 0 <= profile.chosen < len(profile.engines)
        return profile if sound and profile.choice.accepted else None

    def write(self, profile: ModelProfile) -> None:
        """Keep a profile, replacing an older one atomically. Raises OSError if the disk refuses."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".profile-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(profile.model_dump_json(indent=2))
            os.replace(temporary, self._path(profile.content))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def stamp(self, content: str) -> tuple[int, int]:
        """Changes when the stored profile does: (inode, mtime in ns), zeros if there is none."""
        try:
            status = self._path(content).stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def _path(self, content: str) -> Path:
        if not _DIGEST.fullmatch(content):
            raise ValueError(f"not a sha256 digest: {content!r}")
        return self._folder / f"{content}.json"


def cache_folder() -> Path:
    """Where Nonet keeps what it can rebuild: ``$NONET_CACHE``, else ``nonet`` in the user's cache folder."""
    if explicit := os.environ.get("NONET_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nonet"


def measure_latency(
    servable: Servable,
    batch_sizes: Sequence[int],
    *,
    repeats: int = 7,
    budget: float = 1.0,
    pause: Callable[[], None] = lambda: None,
) -> dict[int, float]:
    """Seconds of one execution, by batch size: the fastest of several, which other load disturbs least.

    Each size runs once unmeasured, then up to ``repeats`` times, fewer once ``budget`` seconds went into that
    size; the first run counts and is the only one if it alone took longer. The servable must be loaded;
    nothing else should run meanwhile. ``pause`` is called before each run and may wait or raise. Raises
    ServingError if the servable fails on its own sample request.
    """
    return measure_in_turns([servable], batch_sizes, repeats=repeats, budget=budget, pause=pause)[0]


def measure_in_turns(
    servables: Sequence[Servable],
    batch_sizes: Sequence[int],
    *,
    repeats: int = 7,
    budget: float = 1.0,
    pause: Callable[[], None] = lambda: None,
) -> list[dict[int, float]]:
    """As :func:`measure_latency` for several that take turns, so that what else the machine does falls on all
    of them; ``budget`` is of each."""
    latencies: list[dict[int, float]] = [{} for _ in servables]
    for rows in batch_sizes:
        requests = [servable.sample_request(rows) for servable in servables]
        durations: list[list[float]] = [[] for _ in servables]
        for attempt in range(repeats + 1):
            for servable, request, kept in zip(servables, requests, durations, strict=True):
                if kept and sum(kept) >= budget:
                    continue
                pause()
                started = time.perf_counter()
                outcome = servable.execute([request])[0]
                elapsed = time.perf_counter() - started
                if isinstance(outcome, ServingError):
                    raise outcome
                if attempt > 0 or elapsed > budget:
                    kept.append(elapsed)
        for known, kept in zip(latencies, durations, strict=True):
            known[rows] = min(kept)
    return latencies
