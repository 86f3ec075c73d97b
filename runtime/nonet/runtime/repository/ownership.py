"""Whose a model is: the tenant who published its first version. Every version's manifest says it, so it holds
wherever the repository is served; a model without an owner is everybody's."""

from __future__ import annotations

from pathlib import Path

from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.layout import MANIFEST_FILE, ModelFolder, read_model
from nonet.runtime.repository.manifest import read_manifest

__all__ = ["may_change", "owner_of", "owner_of_folder"]


def owner_of(root: Path, name: str) -> str | None:
    """The owner of a model, "" if it is everybody's, None if there is no such model."""
    folder = read_model(root, name)
    return None if folder is None else owner_of_folder(folder)


def owner_of_folder(folder: ModelFolder) -> str:
    """The owner that the newest version with a sound manifest names; "" if there is none."""
    for version in reversed(folder.versions):
        try:
            manifest = read_manifest(version.path / MANIFEST_FILE)
        except ModelRefused:
            continue
        if manifest is not None:
            return manifest.owner
    return ""


def may_change(owner: str | None, tenant: str) -> bool:
    """Whether ``tenant`` may change a model of ``owner``: what belongs to nobody is everybody's, and "", the
    tenant of all where no keys are asked for, may change anything."""
    return not owner or not tenant or owner == tenant
