"""The commands and programs of ``docs/text-to-image.md`` run as they stand, in order, against a server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import handmade_diffusion
from tests.support.running_server import running

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "text-to-image.md"
BLOCK = re.compile(r"^```(bash|python) pictures\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shipped(root: Path) -> Path:
    """The shipped models of the task, or a handmade one where there is none."""
    for model in (ROOT / "model_repository").iterdir():
        manifests = list(model.glob("*/manifest.json"))
        if any('"task": "text_to_image"' in manifest.read_text() for manifest in manifests):
            shutil.copytree(model, root / model.name)
    if not list(root.iterdir()):
        handmade_diffusion.add_text_to_image(root, "shapes")
    return root


@pytest.mark.timeout(240)
def test_documented_commands_work(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    assert [language for language, _ in blocks] == ["bash", "python", "python", "python"]
    models, folder = tmp_path / "models", tmp_path / "work"
    models.mkdir()
    folder.mkdir()
    with running(shipped(models), tmp_path / "server") as server:
        said = ""
        for language, block in blocks:
            text = block.replace("localhost:8000", f"127.0.0.1:{server.http_port}")
            command = ["bash", "-euo", "pipefail"] if language == "bash" else [sys.executable]
            done = subprocess.run(
                [*command, "-c", text], capture_output=True, text=True, cwd=folder, timeout=200
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            said += done.stdout
    assert (folder / "apple.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(folder.glob("car-*.webp"))) == 4
    assert "image_generation.partial_image" in said
    assert "image_generation.completed" in said
    assert re.search(r"\d+ bytes\n\d+ bytes\n$", said)
