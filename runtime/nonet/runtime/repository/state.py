"""State that the repository manager keeps of each model between two scans of the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.config import ModelConfig
from nonet.runtime.repository.layout import MANIFEST_FILE, Fingerprint, VersionFolder
from nonet.runtime.repository.manifest import read_manifest

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0


class ChangeKind(enum.StrEnum):
    """What happened to a version."""

    LOADED = "loaded"
    RELOADED = "reloaded"
    UNLOADED = "unloaded"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One thing the manager did; ``reason`` says why a version failed."""

    model: str
    version: str
    kind: ChangeKind
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How to look at a model.

    ``settled``: take its files as complete. ``retry``: try again what failed. ``afresh``: load again what
    is loaded.
    """

    settled: bool = False
    retry: bool = False
    afresh: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version that serves: the files it was made from, the names it is published under (network first),
    the stamp of the profile that was there, and whether it is a shadow of the version that serves."""

    fingerprint: Fingerprint
    members: tuple[str, ...]
    content: str
    stamp: tuple[int, int]
    shadow: bool = False

    def unchanged(self, fingerprint: Fingerprint, stamp: tuple[int, int]) -> bool:
        return self.fingerprint == fingerprint and self.stamp == stamp


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A version that could not be loaded: from which files, how often, and when to try those again."""

    fingerprint: Fingerprint
    attempts: int
    retry_at: float | None

    def is_due(self, fingerprint: Fingerprint, now: float) -> bool:
        """Whether trying makes sense: the files changed, or the cause may have passed."""
        return fingerprint != self.fingerprint or (self.retry_at is not None and now >= self.retry_at)


class ServiceOwners:
    """Which network each service was derived from; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, str] = {}

    def owner(self, service: str) -> str | None:
        """The network a service belongs to, or None if there is no such service."""
        with self._lock:
            return self._owners.get(service)

    def claim(self, network: str, services: Sequence[str]) -> None:
        with self._lock:
            self._owners.update(dict.fromkeys(services, network))

    def release(self, network: str) -> None:
        """Forget all services of a network."""
        with self._lock:
            self._owners = {service: owner for service, owner in self._owners.items() if owner != network}


class ModelRecord:
    """One model's state; ``lock`` is held by whoever works on the model.

    ``held``: unloaded by hand. ``override``: the configuration given with the last load, or None.
    ``unloaded``: names under which versions unloaded by hand stay in the index. ``marked``: versions of which
    the index says something other than that they are ready.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.loaded: dict[str, LoadedVersion] = {}
        self.failures: dict[str, Failure] = {}
        self.unloaded: dict[str, tuple[str, ...]] = {}
        self.marked: set[str] = set()
        self.override: ModelConfig | None = None
        self.held = False
        self._seen: dict[str, Fingerprint] = {}

    def note_failure(self, version: str, fingerprint: Fingerprint, refused: ModelRefused, now: float) -> None:
        """Remember a failure, with a delay that doubles while the files stay the same."""
        before = self.failures.get(version)
        attempts = 1 + (before.attempts if before and before.fingerprint == fingerprint else 0)
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempts - 1, 10))
        self.failures[version] = Failure(fingerprint, attempts, None if refused.permanent else now + delay)

    def surplus(self, wanted: Collection[str], serving: Collection[str]) -> list[str]:
        """Loaded versions that are to go. While none of the versions ``wanted`` serves, as when the one that
        did was removed and its successor cannot be loaded, what is loaded goes on."""
        if wanted and not serving:
            return []
        return [version for version in self.loaded if version not in serving]

    def is_shadow(self, version: VersionFolder) -> bool:
        """Whether a version is to answer beside the one that serves, not in its place."""
        if (loaded := self.loaded.get(version.version)) is not None:
            return loaded.shadow
        with contextlib.suppress(ModelRefused):
            manifest = read_manifest(version.path / MANIFEST_FILE)
            return manifest is not None and manifest.shadow_rows > 0
        return False

    def is_settled(self, version: str, fingerprint: Fingerprint, manifest: Path) -> bool:
        """Whether a version's files can be taken as complete: a manifest vouches for them, or they are the
        same as at the last look."""
        same = self._seen.get(version) == fingerprint
        self._seen[version] = fingerprint
        return same or manifest.is_file()
