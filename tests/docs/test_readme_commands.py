"""Documentation that executes: shell and Python blocks marked with ``run`` are run as they stand.

A block is marked by a second word after its language, which no renderer shows::

    ```bash run
    curl -s localhost:8000/v2/health/ready
    ```

The addresses ``localhost:8000`` and ``localhost:8001`` are those of a server started for the test from the
shipped model repository. Blocks of one file run in order, in the root of the project, and must exit with 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer, running

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python) run[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """Every marked block: where it stands, its language, its text."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1], match[2]))
    return found


BLOCKS = blocks()


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    shipped = ROOT / "model_repository"
    if not list(shipped.glob("*/*/manifest.json")):
        pytest.skip("no trained models in model_repository")
    with running(shipped, tmp_path_factory.mktemp("documented")) as started:
        yield started


def test_the_readme_has_commands_that_are_executed() -> None:
    assert any(place.startswith("README.md") for place, _, _ in BLOCKS), "mark blocks as ```bash run"


@pytest.mark.parametrize(("place", "language", "text"), BLOCKS, ids=[block[0] for block in BLOCKS])
def test_documented_commands_work(documented: RunningServer, place: str, language: str, text: str) -> None:
    for host in ("localhost", "127.0.0.1"):
        text = text.replace(f"{host}:8000", f"127.0.0.1:{documented.http_port}")
        text = text.replace(f"{host}:8001", f"127.0.0.1:{documented.grpc_port}")
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables, timeout=100)
    assert result.returncode == 0, f"{place}\n{result.stdout}\n{result.stderr}"
    assert '"error"' not in result.stdout, f"{place} answers with an error:\n{result.stdout}"
