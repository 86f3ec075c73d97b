"""Versions that another process serves: those whose manifest names a task that is not this process's."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from nonet.runtime.errors import Conflict, ModelRefused
from nonet.runtime.repository.layout import (
    MANIFEST_FILE,
    Fingerprint,
    ModelFolder,
    VersionFolder,
    file_fingerprint,
)
from nonet.runtime.repository.manifest import read_manifest

__all__ = ["ForeignTasks"]


class ForeignTasks:
    """Leaves out what is not to be loaded here; a manifest is read again only when it has changed.

    Args:
        tasks: names of the tasks whose networks are loaded elsewhere.
    """

    def __init__(self, tasks: Collection[str]) -> None:
        self._tasks = frozenset(tasks)
        self._known: dict[tuple[str, str], tuple[Fingerprint, bool]] = {}

    def without_foreign(self, folders: Mapping[str, ModelFolder]) -> dict[str, ModelFolder]:
        """The models with the versions that are loaded here; models of foreign versions alone are gone."""
        here = ((name, self._here(folder)) for name, folder in folders.items())
        return {name: folder for name, folder in here if folder is not None}

    def checked(self, folder: ModelFolder) -> ModelFolder:
        """The model with the versions that are loaded here. Raises Conflict (``MODEL_ELSEWHERE``) if all of
        them are foreign."""
        here = self._here(folder)
        if here is None:
            raise Conflict(
                f"model '{folder.name}' is for a task that another service answers; load it there",
                param="model",
                code="MODEL_ELSEWHERE",
            )
        return here

    def _here(self, folder: ModelFolder) -> ModelFolder | None:
        if not self._tasks:
            return folder
        versions = tuple(version for version in folder.versions if not self._is_foreign(version))
        if folder.versions and not versions:
            return None
        return dataclasses.replace(folder, versions=versions)

    def _is_foreign(self, version: VersionFolder) -> bool:
        key = (version.model, version.version)
        fingerprint = file_fingerprint(version.path, MANIFEST_FILE)
        known = self._known.get(key)
        if known is None or known[0] != fingerprint:
            try:
                manifest = read_manifest(version.path / MANIFEST_FILE)
            except ModelRefused:  # whoever loads it says what is wrong
                manifest = None
            known = (fingerprint, manifest is not None and manifest.task in self._tasks)
            self._known[key] = known
        return known[1]
