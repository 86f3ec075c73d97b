"""The ready services of one task, by name, by network and by family, kept in order at every change.

A change costs a few binary searches in sorted lists; a look-up does not depend on how many services there
are. Only the newest version of a service is found. Not thread-safe: its owner, the catalog, guards it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

from nonet.runtime.servable import ModelInfo

__all__ = ["TaskIndex", "version_order"]

_Key = Callable[[ModelInfo], "tuple[float, str]"]


def version_order(version: str) -> tuple[int, str]:
    """Sorts versions: by number, and what is no number before all of them."""
    return (int(version), "") if version.isdecimal() else (-1, version)


class _Ordered:
    """Services in the order of a key that no two of them share."""

    __slots__ = ("_key", "_services", "_snapshot")

    def __init__(self, key: _Key, services: list[ModelInfo]) -> None:
        self._key = key
        self._services = sorted(services, key=key)
        self._snapshot: tuple[ModelInfo, ...] | None = None

    @property
    def services(self) -> tuple[ModelInfo, ...]:
        if self._snapshot is None:
            self._snapshot = tuple(self._services)
        return self._snapshot

    def add(self, info: ModelInfo) -> None:
        bisect.insort(self._services, info, key=self._key)
        self._snapshot = None

    def remove(self, info: ModelInfo) -> None:
        del self._services[bisect.bisect_left(self._services, self._key(info), key=self._key)]
        self._snapshot = None


class _Group:
    """Services that share a name or a family, in the orders that were asked for so far."""

    __slots__ = ("_by_name", "_orders")

    def __init__(self) -> None:
        self._by_name: dict[str, ModelInfo] = {}
        self._orders: dict[str, _Ordered] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def best_first(self, figure: str) -> tuple[ModelInfo, ...]:
        order = self._orders.get(figure)
        if order is None:
            order = self._orders[figure] = _Ordered(_best_first(figure), list(self._by_name.values()))
        return order.services

    def add(self, info: ModelInfo) -> None:
        self._by_name[info.name] = info
        for order in self._orders.values():
            order.add(info)

    def remove(self, info: ModelInfo) -> None:
        del self._by_name[info.name]
        for order in self._orders.values():
            order.remove(info)


def _best_first(figure: str) -> _Key:
    def key(info: ModelInfo) -> tuple[float, str]:
        value = info.quality.get(figure, 0.0)
        # Written so that a figure that is not a number counts as none: it would have no place in an order.
        return (-value if value > 0.0 else 0.0, info.name)

    return key


class TaskIndex:
    """See the module's text."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ModelInfo]] = {}
        self._newest = _Ordered(lambda info: (0.0, info.name), [])
        self._named: dict[str, _Group] = {}
        self._families: dict[str, _Group] = {}
        self._family_names: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._versions)

    @property
    def services(self) -> tuple[ModelInfo, ...]:
        """The newest version of each service, by name."""
        return self._newest.services

    def named(self, name: str, figure: str) -> tuple[ModelInfo, ...]:
        """The services that have this name or whose network has it, the largest ``figure`` of their quality
        first, then by name; () if none."""
        group = self._named.get(name)
        return group.best_first(figure) if group is not None else ()

    def family(self, family: str, figure: str) -> tuple[ModelInfo, ...]:
        """The services of a family ("" for those of none), in the same order."""
        group = self._families.get(family)
        return group.best_first(figure) if group is not None else ()

    def first_family(self) -> str:
        """The first family by name; "" if no service has one."""
        return self._family_names[0] if self._family_names else ""

    def add(self, info: ModelInfo) -> None:
        """A version is ready."""
        versions = self._versions.setdefault(info.name, [])
        before = versions[-1] if versions else None
        bisect.insort(versions, info, key=lambda each: version_order(each.version))
        self._replace(before, versions[-1])

    def remove(self, info: ModelInfo) -> None:
        """A version that was added is ready no longer."""
        versions = self._versions[info.name]
        before = versions[-1]
        del versions[next(place for place, each in enumerate(versions) if each.version == info.version)]
        if not versions:
            del self._versions[info.name]
        self._replace(before, versions[-1] if versions else None)

    def _replace(self, before: ModelInfo | None, after: ModelInfo | None) -> None:
        if before is after:
            return
        if before is not None:
            self._newest.remove(before)
            for name in {before.name, before.network}:
                self._leave(self._named, name, before)
            if self._leave(self._families, before.family, before) and before.family:
                self._family_names.remove(before.family)
        if after is not None:
            self._newest.add(after)
            for name in {after.name, after.network}:
                self._named.setdefault(name, _Group()).add(after)
            if after.family and after.family not in self._families:
                bisect.insort(self._family_names, after.family)
            self._families.setdefault(after.family, _Group()).add(after)

    @staticmethod
    def _leave(groups: dict[str, _Group], name: str, info: ModelInfo) -> bool:
        """Take a service out of a group; True if the group has gone with it."""
        group = groups[name]
        group.remove(info)
        if group:
            return False
        del groups[name]
        return True
