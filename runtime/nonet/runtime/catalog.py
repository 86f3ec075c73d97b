"""The catalog: which model versions can be called right now, and who is using them.

A version is published as a *group*: a network and the services derived from it live and die together. A
request takes a lease before it runs. A group that is replaced or retired accepts no new lease; when its last
lease is released its members are closed, services before their network, so nothing is ever freed under a
request that uses it. All methods may be called from any thread.

A version whose network says that it is a *shadow* answers those who name it. Who names none gets the highest
version that is none, and a shadow only where there is nothing else.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from nonet.runtime.catalog_versions import Entry, Group, Versions
from nonet.runtime.errors import NotFound, Unavailable
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task_index import TaskIndex, version_order

logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


class ModelState(enum.StrEnum):
    """States as the repository extension of the protocol names them."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclasses.dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; ``reason`` says why a version is not ready."""

    name: str
    version: str
    state: ModelState
    reason: str = ""


ChangeListener = Callable[[str, str, "ModelInfo | None"], None]
"""Called with name, version and the new info, or None when the version left the catalog."""
CloseListener = Callable[[str, str], None]
"""Called with name and version of a servable that was closed."""


class Lease:
    """The right to use one servable; release it, or use it as a context manager."""

    __slots__ = ("_catalog", "_group", "servable")

    def __init__(self, catalog: Catalog, group: Group, servable: Servable) -> None:
        self._catalog = catalog
        self._group: Group | None = group
        self.servable = servable

    @property
    def info(self) -> ModelInfo:
        return self.servable.info

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
        group, self._group = self._group, None
        if group is not None:
            self._catalog._release(group)

    def share(self) -> Lease:
        """A second lease on the same servable, also when it has been retired meanwhile.

        Raises RuntimeError if this lease was released.
        """
        group = self._group
        if group is None:
            raise RuntimeError("a released lease cannot be shared")
        self._catalog._hold(group)
        return Lease(self._catalog, group, self.servable)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


_NO_VERSIONS = Versions()
_NO_SERVICES = TaskIndex()


class Catalog:
    """Names and versions to servables, with leases. See the module's text for the guarantees."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, Versions] = {}
        self._tasks: dict[str, TaskIndex] = {}
        self._withdrawn: set[Group] = set()
        self._marks: dict[str, dict[str, IndexEntry]] = {}
        self._listeners: list[ChangeListener] = []
        self._close_listeners: list[CloseListener] = []

    def publish(self, *members: Servable) -> None:
        """Make ``members`` callable: the network first, then the services derived from it.

        Each (name, version) is added or atomically replaced. A group of which any member is replaced is
        retired as a whole and closes when its last lease goes; its members that are not in the new group
        disappear. Raises ValueError without members.
        """
        if not members:
            raise ValueError("publish needs at least one servable")
        group = Group(tuple(members))
        replaced: list[Group] = []
        gone: list[ModelInfo] = []
        with self._lock:
            for member in members:
                old = self._versions(member.info.name).entries.get(member.info.version)
                if old is not None and old.group not in replaced:
                    replaced.append(old.group)
            for old_group in replaced:
                gone += self._withdraw(old_group)
            for member in members:
                self._add(Entry(member, group, member.info))
                self._unmark(member.info.name, member.info.version)
            to_close = [old_group for old_group in replaced if old_group.leases == 0]
        published = {(member.info.name, member.info.version) for member in members}
        for info in gone:
            if (info.name, info.version) not in published:
                self._notify(info.name, info.version, None)
        for member in members:
            self._notify(member.info.name, member.info.version, member.info)
        for old_group in to_close:
            self._close(old_group)

    def retire(self, name: str, version: str, timeout: float | None = None) -> bool:
        """Withdraw the group that holds this version and wait for its leases.

        Blocks up to ``timeout`` seconds (None: for ever). Returns True once the group is closed, False if
        leases were still out at the timeout; the group then closes with the last of them. Raises NotFound
        if the version is not published.
        """
        with self._lock:
            entry = self._versions(name).entries.get(version)
            if entry is None:
                raise NotFound(f"model '{name}' version '{version}' is not loaded", param="model")
            group = entry.group
            gone = self._withdraw(group)
            close_here = group.leases == 0
        for info in gone:
            self._notify(info.name, info.version, None)
        if close_here:
            self._close(group)
        return group.closed.wait(timeout)

    def mark(self, name: str, version: str, state: ModelState, reason: str = "") -> None:
        """Say what the index shows for a version that is not callable. A ready version keeps serving
        and shows the reason beside READY."""
        with self._lock:
            self._marks.setdefault(name, {})[version] = IndexEntry(name, version, state, reason)

    def forget(self, name: str, version: str) -> None:
        """Remove a mark, if there is one."""
        with self._lock:
            self._unmark(name, version)

    def lease(self, name: str, version: str = "") -> Lease:
        """Take a lease on a version; "" means the highest ready one that is no shadow.

        Raises NotFound for a model or version nobody knows, Unavailable (``MODEL_NOT_READY``, with
        ``Retry-After``) for one that is known but not ready.
        """
        with self._lock:
            entry = self._find(name, version)
            entry.group.leases += 1
            return Lease(self, entry.group, entry.servable)

    def info(self, name: str, version: str = "") -> ModelInfo:
        """What is known of a ready version. Raises as :meth:`lease` does."""
        with self._lock:
            return self._find(name, version).info

    def infos(self, name: str = "") -> list[ModelInfo]:
        """All ready versions, or those of one model, by name, then by version number."""
        with self._lock:
            models = [self._versions(name)] if name else [each for _, each in sorted(self._models.items())]
            return [each.entries[version].info for each in models for version in each.ascending]

    def newest(self, name: str) -> ModelInfo | None:
        """The version of a model that those get who name none, or None."""
        with self._lock:
            default = self._versions(name).default
            return None if default is None else default.info

    def shadow(self, name: str) -> ModelInfo | None:
        """The ready version of a model that is a shadow of its newest, or None."""
        with self._lock:
            versions = self._versions(name)
            if not versions.ascending:
                return None
            last = versions.entries[versions.ascending[-1]]
            return last.info if last.group.shadow and last is not versions.default else None

    def services(self, task: str) -> Sequence[ModelInfo]:
        """The newest ready version of each service of a task, by name."""
        return self.find(task, lambda index: index.services)

    def find(self, task: str, question: Callable[[TaskIndex], _Answer]) -> _Answer:
        """What ``question`` finds among the ready services of a task, all of one moment.

        The catalog waits for it: it must be brief, ask the catalog nothing and keep no hold of the index.
        """
        with self._lock:
            return question(self._tasks.get(task, _NO_SERVICES))

    @property
    def empty(self) -> bool:
        """Whether nothing at all can be called."""
        with self._lock:
            return not self._models

    def versions(self, name: str) -> list[str]:
        """The ready versions of a model, ascending; empty for an unknown model."""
        with self._lock:
            return list(self._versions(name).ascending)

    def has(self, name: str, version: str) -> bool:
        """Whether a version is ready."""
        with self._lock:
            return version in self._versions(name).entries

    def in_use(self, name: str) -> set[str]:
        """The ready versions of a model, and those withdrawn that requests still hold."""
        with self._lock:
            held = (member.info for group in self._withdrawn for member in group.members)
            return {info.version for info in held if info.name == name} | self._versions(name).entries.keys()

    def index(self) -> list[IndexEntry]:
        """Every version known: the ready ones and the marked ones, by name and version."""
        with self._lock:
            lines = {
                (name, line.version): line for name, marks in self._marks.items() for line in marks.values()
            }
            for name, versions in self._models.items():
                for version in versions.entries:
                    mark = lines.get((name, version))
                    lines[(name, version)] = IndexEntry(
                        name, version, ModelState.READY, mark.reason if mark else ""
                    )
        return [lines[key] for key in sorted(lines, key=lambda key: (key[0], version_order(key[1])))]

    def on_change(self, listener: ChangeListener) -> None:
        """Call ``listener`` after each publish and retire, in the thread that did it."""
        with self._lock:
            self._listeners.append(listener)

    def on_close(self, listener: CloseListener) -> None:
        """Call ``listener`` with (name, version) after a servable was closed, which is when the last lease on
        its group has gone; in any thread. The same version may be published again by then."""
        with self._lock:
            self._close_listeners.append(listener)

    def _find(self, name: str, version: str) -> Entry:
        versions = self._versions(name)
        if versions.ascending:
            entry = versions.entries.get(version) if version else versions.default
            if entry is not None:
                return entry
        marks = self._marks.get(name, {})
        if version:
            marks = {version: marks[version]} if version in marks else {}
        if marks:
            mark = marks[next(reversed(marks))]
            why = f": {mark.reason}" if mark.reason else ""
            raise Unavailable(
                f"model '{name}' is not ready ({mark.state}){why}", param="model", code="MODEL_NOT_READY"
            )
        if versions.ascending:
            known = ", ".join(versions.ascending)
            raise NotFound(
                f"model '{name}' has no version '{version}'; versions: {known}",
                param="version",
                code="VERSION_NOT_FOUND",
            )
        raise NotFound(f"unknown model '{name}'", param="model", code="MODEL_NOT_FOUND")

    def _versions(self, name: str) -> Versions:
        return self._models.get(name, _NO_VERSIONS)

    def _unmark(self, name: str, version: str) -> None:
        marks = self._marks.get(name)
        if marks is not None and marks.pop(version, None) is not None and not marks:
            del self._marks[name]

    def _add(self, entry: Entry) -> None:
        """Enter a version; the lock is held."""
        info = entry.info
        if (old := self._versions(info.name).entries.get(info.version)) is not None:
            self._remove(old)  # twice in one group: the last one counts
        versions = self._models.setdefault(info.name, Versions())
        before = versions.offered
        versions.entries[info.version] = entry
        bisect.insort(versions.ascending, info.version, key=version_order)
        versions.choose()
        self._index(before, versions.offered)

    def _remove(self, entry: Entry) -> None:
        """Take a version out; the lock is held."""
        info = entry.info
        versions = self._models[info.name]
        before = versions.offered
        del versions.entries[info.version]
        versions.ascending.remove(info.version)
        versions.choose()
        if not versions.ascending:
            del self._models[info.name]
        self._index(before, versions.offered)

    def _index(self, before: Sequence[Entry], after: Sequence[Entry]) -> None:
        """Other versions of a model are offered; the lock is held."""
        for entry in after:
            if entry not in before and entry.info.task and entry.info.network:
                self._tasks.setdefault(entry.info.task, TaskIndex()).add(entry.info)
        for entry in before:
            if entry not in after and entry.info.task and entry.info.network:
                index = self._tasks[entry.info.task]
                index.remove(entry.info)
                if not index:
                    del self._tasks[entry.info.task]

    def _withdraw(self, group: Group) -> list[ModelInfo]:
        """Take the group's entries out; the lock is held."""
        group.retired = True
        self._withdrawn.add(group)
        gone: list[ModelInfo] = []
        for member in group.members:
            info = member.info
            entry = self._versions(info.name).entries.get(info.version)
            if entry is not None and entry.group is group:
                self._remove(entry)
                gone.append(info)
        return gone

    def _hold(self, group: Group) -> None:
        with self._lock:
            group.leases += 1

    def _release(self, group: Group) -> None:
        with self._lock:
            group.leases -= 1
            last = group.retired and group.leases == 0
        if last:
            # The last lease often ends on the event loop, which must not wait for memory to be freed.
            threading.Thread(target=self._close, args=(group,), name="catalog-close", daemon=True).start()

    def _close(self, group: Group) -> None:
        for member in reversed(group.members):
            try:
                member.close()
            except Exception:
                logger.exception("closing model %s failed", member.info.name)
        with self._lock:
            self._withdrawn.discard(group)
            listeners = list(self._close_listeners)
        for member in group.members:
            for listener in listeners:
                try:
                    listener(member.info.name, member.info.version)
                except Exception:
                    logger.exception("a catalog listener failed for model %s", member.info.name)
        group.closed.set()

    def _notify(self, name: str, version: str, info: ModelInfo | None) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener(name, version, info)
            except Exception:
                logger.exception("a catalog listener failed for model %s", name)
