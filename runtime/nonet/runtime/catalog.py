"""The catalog: which model versions can be called right now, and who is using them.

A version is published as a *group*: a network and the services derived from it live and die together. A
request takes a lease before it runs. A group that is replaced or retired accepts no new lease; when its last
lease is released its members are closed, services before their network, so nothing is ever freed under a
request that uses it. All methods may be called from any thread.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

from nonet.runtime.errors import NotFound, Unavailable
from nonet.runtime.servable import ModelInfo, Servable

logger = logging.getLogger(__name__)


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

    def __init__(self, catalog: Catalog, group: _Group, servable: Servable) -> None:
        self._catalog = catalog
        self._group: _Group | None = group
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


class _Group:
    """A network and its services: one lease count, one end."""

    __slots__ = ("closed", "leases", "members", "retired")

    def __init__(self, members: tuple[Servable, ...]) -> None:
        self.members = members
        self.leases = 0
        self.retired = False
        self.closed = threading.Event()


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    servable: Servable
    group: _Group


def _version_order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)


def _newest(versions: Iterable[str]) -> str:
    return max(versions, key=_version_order)


class Catalog:
    """Names and versions to servables, with leases. See the module's text for the guarantees."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, _Entry]] = {}
        self._withdrawn: set[_Group] = set()
        self._marks: dict[tuple[str, str], IndexEntry] = {}
        self._named: dict[str, dict[str, int]] = {}  # task -> name -> versions of that task
        self._changes: dict[str, int] = {}
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
        group = _Group(tuple(members))
        replaced: list[_Group] = []
        gone: list[ModelInfo] = []
        with self._lock:
            for member in members:
                old = self._entries.get(member.info.name, {}).get(member.info.version)
                if old is not None and old.group not in replaced:
                    replaced.append(old.group)
            for old_group in replaced:
                gone += self._withdraw(old_group)
            for member in members:
                info = member.info
                self._entries.setdefault(info.name, {})[info.version] = _Entry(member, group)
                self._count(info, 1)
                self._marks.pop((info.name, info.version), None)
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
            entry = self._entries.get(name, {}).get(version)
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
            self._marks[(name, version)] = IndexEntry(name, version, state, reason)

    def forget(self, name: str, version: str) -> None:
        """Remove a mark, if there is one."""
        with self._lock:
            self._marks.pop((name, version), None)

    def lease(self, name: str, version: str = "") -> Lease:
        """Take a lease on a version; "" means the highest ready one.

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
            return self._find(name, version).servable.info

    def infos(self) -> list[ModelInfo]:
        """All ready versions, by name, then by version number."""
        with self._lock:
            return [
                versions[version].servable.info
                for _, versions in sorted(self._entries.items())
                for version in sorted(versions, key=_version_order)
            ]

    def changes(self, task: str) -> int:
        """How often what is ready of a task has changed: what was read of it holds until this does."""
        return self._changes.get(task, 0)

    def services(self, task: str) -> list[ModelInfo]:
        """The newest ready version of each service of a task, by name. Costs what that task has, whatever
        else there is; ask :meth:`changes` before asking again."""
        with self._lock:
            found = []
            for name in sorted(self._named.get(task, ())):
                infos = (entry.servable.info for entry in self._entries[name].values())
                of_task = [info for info in infos if info.task == task and info.network]
                if of_task:
                    found.append(max(of_task, key=lambda info: _version_order(info.version)))
            return found

    def _count(self, info: ModelInfo, change: int) -> None:
        """A version of a task came (1) or went (-1); the lock is held."""
        names = self._named.setdefault(info.task, {})
        names[info.name] = names.get(info.name, 0) + change
        if not names[info.name]:
            del names[info.name]
        self._changes[info.task] = self._changes.get(info.task, 0) + 1

    @property
    def empty(self) -> bool:
        """Whether nothing at all can be called."""
        with self._lock:
            return not self._entries

    def versions(self, name: str) -> list[str]:
        """The ready versions of a model, ascending; empty for an unknown model."""
        with self._lock:
            return sorted(self._entries.get(name, {}), key=_version_order)

    def in_use(self, name: str) -> set[str]:
        """The ready versions of a model, and those withdrawn that requests still hold."""
        with self._lock:
            held = (member.info for group in self._withdrawn for member in group.members)
            return {info.version for info in held if info.name == name} | self._entries.get(name, {}).keys()

    def index(self) -> list[IndexEntry]:
        """Every version known: the ready ones and the marked ones, by name and version."""
        with self._lock:
            lines = dict(self._marks)
            for name, versions in self._entries.items():
                for version in versions:
                    mark = self._marks.get((name, version))
                    lines[(name, version)] = IndexEntry(
                        name, version, ModelState.READY, mark.reason if mark else ""
                    )
        return [lines[key] for key in sorted(lines, key=lambda key: (key[0], _version_order(key[1])))]

    def on_change(self, listener: ChangeListener) -> None:
        """Call ``listener`` after each publish and retire, in the thread that did it."""
        with self._lock:
            self._listeners.append(listener)

    def on_close(self, listener: CloseListener) -> None:
        """Call ``listener`` with (name, version) after a servable was closed, which is when the last lease on
        its group has gone; in any thread. The same version may be published again by then."""
        with self._lock:
            self._close_listeners.append(listener)

    def _find(self, name: str, version: str) -> _Entry:
        versions = self._entries.get(name)
        if versions:
            chosen = version or (next(iter(versions)) if len(versions) == 1 else _newest(versions))
            if (entry := versions.get(chosen)) is not None:
                return entry
        marks = [mark for key, mark in self._marks.items() if key[0] == name]
        if version:
            marks = [mark for mark in marks if mark.version == version]
        if marks:
            mark = marks[-1]
            why = f": {mark.reason}" if mark.reason else ""
            raise Unavailable(
                f"model '{name}' is not ready ({mark.state}){why}", param="model", code="MODEL_NOT_READY"
            )
        if versions:
            known = ", ".join(sorted(versions, key=_version_order))
            raise NotFound(
                f"model '{name}' has no version '{version}'; versions: {known}",
                param="version",
                code="VERSION_NOT_FOUND",
            )
        raise NotFound(f"unknown model '{name}'", param="model", code="MODEL_NOT_FOUND")

    def _withdraw(self, group: _Group) -> list[ModelInfo]:
        """Take the group's entries out; the lock is held."""
        group.retired = True
        self._withdrawn.add(group)
        gone: list[ModelInfo] = []
        for member in group.members:
            info = member.info
            versions = self._entries.get(info.name, {})
            entry = versions.get(info.version)
            if entry is not None and entry.group is group:
                del versions[info.version]
                self._count(info, -1)
                gone.append(info)
                if not versions:
                    del self._entries[info.name]
        return gone

    def _hold(self, group: _Group) -> None:
        with self._lock:
            group.leases += 1

    def _release(self, group: _Group) -> None:
        with self._lock:
            group.leases -= 1
            last = group.retired and group.leases == 0
        if last:
            # The last lease often ends on the event loop, which must not wait for memory to be freed.
            threading.Thread(target=self._close, args=(group,), name="catalog-close", daemon=True).start()

    def _close(self, group: _Group) -> None:
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
