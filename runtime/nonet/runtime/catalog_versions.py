"""The ready versions of one model, groups that live and die together, and which version is the default."""

from __future__ import annotations

import dataclasses
import threading

from nonet.runtime.servable import ModelInfo, Servable

__all__ = ["Entry", "Group", "Versions"]


class Group:
    """A network and its services: one lease count, one end."""

    __slots__ = ("closed", "leases", "members", "retired", "shadow")

    def __init__(self, members: tuple[Servable, ...]) -> None:
        self.members = members
        self.shadow = members[0].info.shadow_rows > 0
        self.leases = 0
        self.retired = False
        self.closed = threading.Event()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One version, and the group that it lives and dies with."""

    servable: Servable
    group: Group
    info: ModelInfo


class Versions:
    """The ready versions of one model; ``ascending`` holds the keys of ``entries``, ``default`` is for those
    who name none, ``offered`` are all that are no shadow; a shadow if there is nothing else."""

    __slots__ = ("ascending", "default", "entries", "offered")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.ascending: list[str] = []
        self.default: Entry | None = None
        self.offered: list[Entry] = []

    def choose(self) -> None:
        """Look again what is offered."""
        ascending = [self.entries[version] for version in self.ascending]
        self.offered = [entry for entry in ascending if not entry.group.shadow] or ascending[-1:]
        self.default = self.offered[-1] if self.offered else None
