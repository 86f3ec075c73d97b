"""Loads, unloads and hot-reloads the models of a repository as its files change or callers ask.

Promises:
- a version becomes callable only after it was verified, loaded and warmed up; until then, and whenever the
  new one fails, the old one keeps serving, its files there or not, and the index says why;
- replacing is atomic, and what was replaced is freed when its last request is done;
- a version unloaded by hand stays unloaded until it is loaded by hand;
- looking for changes is cheap: nothing is read that did not change, and nothing that failed is tried again
  before its files change (or, where memory or the disk were at fault, before a growing delay is over).

All methods block and may be called from any thread; work on different models does not wait for each other.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog, ModelState
from nonet.runtime.clock import Clock, MonotonicClock
from nonet.runtime.errors import Conflict, InvalidArgument, ModelRefused, NotFound, ServingError
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository.config import ModelConfig, parse_asked_config, read_config, wanted_versions
from nonet.runtime.repository.foreign_tasks import ForeignTasks
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.labels import LABELS_FILE
from nonet.runtime.repository.layout import (
    CONFIG_FILE,
    MANIFEST_FILE,
    Fingerprint,
    ModelFolder,
    VersionFolder,
    file_fingerprint,
    is_model_name,
    read_model,
    scan,
    version_fingerprint,
)
from nonet.runtime.repository.loader import load_version, prepare_version
from nonet.runtime.repository.publish import remove_leftovers
from nonet.runtime.repository.state import Change, ChangeKind, LoadedVersion, Look, ModelRecord, ServiceOwners
from nonet.runtime.servable import Servable

logger = logging.getLogger(__name__)


Derivation = Callable[[Servable], Sequence[Servable]]
"""Makes the services that wrap a network; they are published, replaced and closed together with it."""


class RepositoryManager:
    """Keeps a catalog in agreement with a repository on disk.

    Args:
        root: the repository's folder.
        catalog: where versions are published.
        options: how networks are loaded.
        derivations: services to make of each network.
        strict: refuse versions without a manifest.
        foreign_tasks: tasks whose networks another process serves; they are not loaded.
        store: measured profiles; by default those of this machine in the user's cache.
        clock: for the delays between attempts.
    """

    def __init__(
        self,
        root: Path,
        catalog: Catalog,
        *,
        options: BackendOptions,
        derivations: Sequence[Derivation] = (),
        strict: bool = False,
        foreign_tasks: Collection[str] = (),
        store: ProfileStore | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._root = root
        self._catalog = catalog
        self._options = options
        self._derivations = tuple(derivations)
        self._strict = strict
        self._foreign = ForeignTasks(foreign_tasks)
        self._store = store or ProfileStore()
        self._clock = clock or MonotonicClock()
        self._hasher = FileHasher()
        self._lock = threading.Lock()
        self._records: dict[str, ModelRecord] = {}
        self._owners = ServiceOwners()

    @property
    def root(self) -> Path:
        return self._root

    @property
    def failed(self) -> int:
        """How many wanted versions could not be loaded, or not anew, from the files they have."""
        with self._lock:
            return sum(len(record.failures) for record in self._records.values())

    def load_all(self) -> list[Change]:
        """Load every model of the repository; a model that cannot be loaded never stops the others.

        Raises FileNotFoundError or NotADirectoryError if there is no such repository.
        """
        remove_leftovers(self._root)
        return self._refresh(Look(settled=True))

    def refresh(self) -> list[Change]:
        """Find and apply what changed on disk since the last look; returns what was done.

        A new version without a manifest must look the same on two looks in a row, since nothing else tells
        a copy in progress from a finished one. Raises OSError if the repository cannot be listed; nothing
        is unloaded then.
        """
        return self._refresh(Look())

    def load(self, name: str, config_override: str | None = None) -> list[Change]:
        """Load a model, or bring it up to date; returns what was done.

        ``config_override`` is a model configuration in JSON that takes the place of ``config.pbtxt`` until
        the next call of ``load``. Raises NotFound for an unknown model, InvalidArgument for an override
        that does not fit, Conflict (``MODEL_LOAD_FAILED``) if the newest version wanted cannot be loaded;
        what was serving before keeps serving.
        """
        folder = self._folder(name)
        override = None
        if config_override is not None:
            try:
                override = parse_asked_config(config_override)
            except ModelRefused as refused:
                raise InvalidArgument(refused.reason, param="config", code="MODEL_CONFIG_INVALID") from None
        record = self._record(name)
        with record.lock:
            before, was_held = record.override, record.held
            record.override, record.held = override, False
            afresh = override is not None or before is not None
            changes = self._bring_up(record, folder, Look(settled=True, retry=True, afresh=afresh))
            failed = next((change for change in changes if change.kind is ChangeKind.FAILED), None)
            if failed is None:
                return changes
            message = f"model '{name}' cannot be loaded: {failed.reason}"
            if override is None:
                raise Conflict(message, param="model", code="MODEL_LOAD_FAILED")
            record.override, record.held = before, was_held
            for version in list(record.failures):
                self._clear(record, version)
            if any(change.kind is not ChangeKind.FAILED for change in changes):
                self._bring_up(record, folder, Look(settled=True, afresh=True))
            raise InvalidArgument(message, param="config", code="MODEL_CONFIG_INVALID")

    def unload(self, name: str, timeout: float | None = 30.0) -> bool:
        """Unload all versions of a model and keep them unloaded until :meth:`load`.

        New requests are refused at once; those that run are waited for, ``timeout`` seconds at most (None:
        for ever). Returns whether all is freed; if not, it will be when the last request is done. Raises
        NotFound for an unknown model, Conflict for a service, which lives and dies with its network.
        """
        with self._lock:
            remembered = name in self._records
        if not self._is_known(name) and not remembered:
            raise _unknown(name)
        record = self._record(name)
        with record.lock:
            record.held = True
            for version in list(record.marked):
                self._clear(record, version)
            freed = True
            for version, loaded in list(record.loaded.items()):
                for member in loaded.members:
                    self._catalog.mark(member, version, ModelState.UNLOADING, "unloading")
                freed &= self._catalog.retire(name, version, timeout)
                for member in loaded.members:
                    self._catalog.mark(member, version, ModelState.UNAVAILABLE, "unloaded")
                record.loaded.pop(version)
                record.unloaded[version] = loaded.members
            return freed

    def _refresh(self, look: Look) -> list[Change]:
        folders = self._foreign.without_foreign(scan(self._root))
        with self._lock:
            gone = [record for name, record in self._records.items() if name not in folders]
        changes: list[Change] = []
        for record in gone:
            with record.lock:
                changes += self._withdraw_all(record)
        for name, folder in folders.items():
            record = self._record(name)
            with record.lock:
                if not record.held:
                    changes += self._bring_up(record, folder, look)
        return changes

    def _bring_up(self, record: ModelRecord, folder: ModelFolder, look: Look) -> list[Change]:
        """Make what serves agree with the folder. The record's lock is held."""
        try:
            config = record.override or read_config(folder.path / CONFIG_FILE)
        except ModelRefused as refused:
            return self._refuse_all(record, folder, refused)
        by_number = {version.version: version for version in folder.versions}
        candidates, count = wanted_versions(config.proto, list(by_number))
        changes: list[Change] = []
        wanted: set[str] = set()
        serving: set[str] = set()
        shadow: set[str] = set()  # the newest only, and none that is older than what serves
        for number in candidates:
            if count is not None and len(serving) == count:
                break
            if shadow and record.is_shadow(by_number[number]):
                continue
            wanted.add(number)
            if change := self._bring_up_version(record, folder, by_number[number], config, look):
                changes.append(change)
            if number in record.loaded:
                (shadow if record.is_shadow(by_number[number]) else serving).add(number)
        for number in record.surplus(wanted, serving | shadow):
            changes.append(self._withdraw(record, number))
        for number in record.marked - wanted:
            self._clear(record, number)
        if not any(change.kind is ChangeKind.FAILED for change in changes):
            self._forget_unloaded(record)
        return changes

    def _bring_up_version(
        self,
        record: ModelRecord,
        folder: ModelFolder,
        version: VersionFolder,
        config: ModelConfig,
        look: Look,
    ) -> Change | None:
        number = version.version
        fingerprint = self._fingerprint(folder, version, config)
        loaded = record.loaded.get(number)
        if loaded is not None and not look.afresh and loaded.unchanged(fingerprint, self._stamp(loaded)):
            self._clear(record, number)
            return None
        failure = record.failures.get(number)
        insist = look.afresh or look.retry
        if failure is not None and not insist and not failure.is_due(fingerprint, self._clock.now()):
            return None
        if not look.settled and not record.is_settled(number, fingerprint, version.path / MANIFEST_FILE):
            self._mark(record, number, ModelState.UNAVAILABLE, "waiting for its files to be complete")
            return None
        if loaded is None:
            self._mark(record, number, ModelState.LOADING, "loading")
        try:
            members = self._build(folder, version, config, fingerprint)
            if record.override is None and not config.is_still(folder.path / CONFIG_FILE):
                _close(members)
                raise ModelRefused("its configuration changed while it was loaded", permanent=False)
        except ModelRefused as refused:
            return self._fail(record, number, fingerprint, refused)
        network = members[0].info
        names, content = tuple(member.info.name for member in members), str(network.details["content"])
        stamp = self._store.stamp(content)
        record.loaded[number] = LoadedVersion(fingerprint, names, content, stamp, network.shadow_rows > 0)
        record.failures.pop(number, None)
        record.unloaded.pop(number, None)
        record.marked.discard(number)
        self._owners.claim(record.name, names[1:])
        self._catalog.publish(*members)
        kind = ChangeKind.LOADED if loaded is None else ChangeKind.RELOADED
        logger.info("model %s version %s %s", record.name, number, kind)
        return Change(record.name, number, kind)

    def _build(
        self, folder: ModelFolder, version: VersionFolder, config: ModelConfig, fingerprint: Fingerprint
    ) -> list[Servable]:
        """Verify, load, derive, warm up. Raises ModelRefused and leaves nothing behind."""
        members: list[Servable] = []
        try:
            self._check_name_is_free(folder.name)
            prepared = prepare_version(
                self._root, folder, version, config, hasher=self._hasher, strict=self._strict
            )
            network = load_version(prepared, self._options, self._store)
            members.append(network)
            for derive in self._derivations:
                for service in derive(network):
                    members.append(service)
                    self._check_service_name(service.info.name, folder.name)
                    service.warm_up()
            if self._fingerprint(folder, version, config) != fingerprint:
                raise ModelRefused("its files changed while it was loaded", permanent=False)
        except BaseException as error:
            _close(members)
            if isinstance(error, ModelRefused) or not isinstance(error, Exception):
                raise
            if isinstance(error, ServingError):
                raise ModelRefused(f"it does not answer its own sample: {error.message}") from None
            logger.exception("model %s version %s could not be loaded", folder.name, version.version)
            raise ModelRefused("loading failed unexpectedly; the log says more", permanent=False) from error
        return members

    def _fail(
        self, record: ModelRecord, number: str, fingerprint: Fingerprint, refused: ModelRefused
    ) -> Change:
        record.note_failure(number, fingerprint, refused, self._clock.now())
        logger.error("model %s version %s is not served: %s", record.name, number, refused.reason)
        self._mark(record, number, ModelState.UNAVAILABLE, refused.reason)
        return Change(record.name, number, ChangeKind.FAILED, refused.reason)

    def _refuse_all(self, record: ModelRecord, folder: ModelFolder, refused: ModelRefused) -> list[Change]:
        """The configuration itself is bad: nothing new is loaded, what serves goes on."""
        fingerprint = file_fingerprint(folder.path, CONFIG_FILE)
        changes = []
        for version in folder.versions:
            failure = record.failures.get(version.version)
            if failure is None or failure.is_due(fingerprint, self._clock.now()):
                changes.append(self._fail(record, version.version, fingerprint, refused))
        return changes

    def _withdraw(self, record: ModelRecord, number: str) -> Change:
        """Stop serving a version that is no longer wanted, without waiting for its requests."""
        record.loaded.pop(number)
        self._catalog.retire(record.name, number, timeout=0)
        self._clear(record, number)
        logger.info("model %s version %s unloaded", record.name, number)
        return Change(record.name, number, ChangeKind.UNLOADED)

    def _withdraw_all(self, record: ModelRecord) -> list[Change]:
        """The model's folder is gone."""
        changes = [self._withdraw(record, number) for number in list(record.loaded)]
        for number in list(record.marked):
            self._clear(record, number)
        self._forget_unloaded(record)
        with self._lock:
            self._records.pop(record.name, None)
        self._owners.release(record.name)
        return changes

    def _mark(self, record: ModelRecord, number: str, state: ModelState, reason: str) -> None:
        record.marked.add(number)
        self._catalog.mark(record.name, number, state, reason)

    def _clear(self, record: ModelRecord, number: str) -> None:
        """Forget what was wrong with a version."""
        record.failures.pop(number, None)
        if number in record.marked:
            record.marked.discard(number)
            self._catalog.forget(record.name, number)

    def _forget_unloaded(self, record: ModelRecord) -> None:
        """Versions once unloaded by hand that the policy no longer wants leave the index."""
        for number, members in record.unloaded.items():
            for member in members:
                self._catalog.forget(member, number)
        record.unloaded.clear()

    def _fingerprint(self, folder: ModelFolder, version: VersionFolder, config: ModelConfig) -> Fingerprint:
        written = hashlib.sha256(config.text.encode()).hexdigest()
        labels = file_fingerprint(folder.path, config.label_file or LABELS_FILE)
        return ((written, 0, 0, 0, 0), *labels, *version_fingerprint(version))

    def _stamp(self, loaded: LoadedVersion) -> tuple[int, int]:
        """The stored profile's stamp while it may decide the engine, else the one at loading."""
        return self._store.stamp(loaded.content) if self._options.engine == "auto" else loaded.stamp

    def _record(self, name: str) -> ModelRecord:
        with self._lock:
            return self._records.setdefault(name, ModelRecord(name))

    def _folder(self, name: str) -> ModelFolder:
        if (folder := read_model(self._root, name) if self._is_known(name) else None) is None:
            raise _unknown(name)
        return self._foreign.checked(folder)

    def _is_known(self, name: str) -> bool:
        """Whether the repository has a model of this name. Raises Conflict for the name of a service."""
        if (owner := self._owners.owner(name)) is not None:
            raise Conflict(
                f"'{name}' is a service of network '{owner}' and lives with it; name the network instead",
                param="model",
            )
        return is_model_name(name) and read_model(self._root, name) is not None

    def _check_name_is_free(self, name: str) -> None:
        if (owner := self._owners.owner(name)) is not None:
            raise ModelRefused(f"its name is taken by a service of network '{owner}'")

    def _check_service_name(self, service: str, network: str) -> None:
        with self._lock:
            is_model = service in self._records
        if is_model or self._owners.owner(service) not in (None, network):
            raise ModelRefused(f"its service '{service}' would take the name of another model")


def _close(members: Sequence[Servable]) -> None:
    """Services before their network."""
    for member in reversed(members):
        member.close()


def _unknown(name: str) -> NotFound:
    shown = f" '{name}'" if is_model_name(name) else ""  # a malformed name is not repeated in replies or logs
    return NotFound(f"unknown model{shown}", param="model", code="MODEL_NOT_FOUND")
