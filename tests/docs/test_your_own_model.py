"""The tutorial of an own model does what it says, block by block, and the manifest's page is true."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nonet.runtime.repository.manifest import Manifest, Preprocessing, parse_manifest
from tests.support.running_server import running

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "your-own-model.md").read_text()
FORMAT = (ROOT / "docs" / "manifest.md").read_text()
BLOCK = re.compile(r"^```(bash|python) tutorial\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(400)  # PyTorch trains and exports
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "onnxscript")),
    reason="the tutorial trains with PyTorch (extra research)",
)
def test_the_tutorial_works_from_the_first_block_to_the_last(tmp_path: Path) -> None:
    blocks = BLOCK.findall(TUTORIAL)
    assert len(blocks) == 5
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    repository = tmp_path / "model_repository"
    repository.mkdir()
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    said = []
    with running(repository, tmp_path / "server") as server:
        for language, text in blocks:
            text = text.replace("localhost:8000", f"127.0.0.1:{server.http_port}")
            command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
            result = subprocess.run(
                [*command, text], capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=300
            )
            assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
            said.append(result)
    _, asked, imported, answered, verified = said
    (question,) = re.findall(r"^    (nonet: neither.*?)\n\n", TUTORIAL, re.MULTILINE | re.DOTALL)
    assert " ".join(question.split()) == asked.stderr.strip()
    assert "read as the options say: 2 classes, 64 px, logits; licence: none stated\n" in imported.stdout
    assert imported.stdout.endswith("published bananas version 1 in model_repository\n")
    reply = json.loads(answered.stdout)
    assert reply["model"] == "bananas"
    assert reply["predictions"][0]["label"] == "ripe"
    assert "answers differ from the check set by" in verified.stdout


def test_the_manifest_of_its_page_is_one_and_every_field_is_explained() -> None:
    (text,) = re.findall(r"^```json manifest\n(.*?)^```", FORMAT, re.MULTILINE | re.DOTALL)
    manifest = parse_manifest(text)
    assert manifest.preprocessing is not None
    assert json.loads(text) == json.loads(manifest.to_json())
    explained = {
        word for row in re.findall(r"^\| (`.*?) \|", FORMAT, re.MULTILINE) for word in row.split("`")
    }
    fields = {field.alias or name for name, field in Manifest.model_fields.items()}
    assert (fields | set(Preprocessing.model_fields)) <= explained
