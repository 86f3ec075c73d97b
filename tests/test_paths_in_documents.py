"""Every file of the project that a document or a docstring of bench/ names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("gateway", "services", "runtime", "jobs", "research")
PAGES = sorted(
    {
        path.relative_to(ROOT).as_posix()
        for path in (
            *ROOT.glob("*.md"),
            *ROOT.glob("*/*.md"),
            *(ROOT / "docs").rglob("*.md"),
            *(ROOT / "bench").glob("*.py"),
        )
    }
)


def named(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|lua|proto|binpb|md|toml)\b", text))


@pytest.mark.parametrize("page", PAGES)
def test_the_files_it_names_are_there(page: str) -> None:
    path = ROOT / page
    roots = [ROOT, path.parent, *(ROOT / wing / "nonet" for wing in WINGS)]
    gone = [name for name in named(path.read_text()) if not any((root / name).exists() for root in roots)]
    assert gone == []
