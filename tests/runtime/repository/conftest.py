"""The managed that the manager's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.managed_repository import ManagedRepository


@pytest.fixture
def managed(tmp_path: Path) -> ManagedRepository:
    root = tmp_path / "models"
    root.mkdir()
    return ManagedRepository(root, tmp_path / "cache")
