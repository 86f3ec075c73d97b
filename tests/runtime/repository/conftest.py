"""The house that the manager's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.managed_repository import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    root = tmp_path / "models"
    root.mkdir()
    return House(root, tmp_path / "cache")
