"""The commands of ``docs/floors.md`` run as they stand, in order, against a server with a quick fit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import synthetic_building
from tests.support.building_gateway import toy_settings, wait_for
from tests.support.running_server import running

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "floors.md"
BLOCK = re.compile(r"^```bash floors\n(.*?)^```", re.MULTILINE | re.DOTALL)
WORKER = ROOT / "tests" / "support" / "short_fit_worker.py"


@pytest.mark.timeout(240)
def test_documented_commands_work(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 5
    models = tmp_path / "models"
    models.mkdir()
    settings = toy_settings(worker=[sys.executable, str(WORKER)])
    with running(models, tmp_path / "server", settings) as server:
        said = ""
        for block in blocks:
            command = block.replace("localhost:8000", f"127.0.0.1:{server.http_port}")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=200,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            assert '"error":{' not in done.stdout, done.stdout
            said += done.stdout
        assert "HTTP/1.1 202 Accepted" in said
        assert '"state":"succeeded"' in said
        assert '"floor":null' in said
        assert said.rstrip().endswith("204")
        (job,) = server.http.get("/v1/jobs").json()["data"]
        wait_for(server, job["id"], "succeeded")


def test_the_example_is_what_the_generator_writes() -> None:
    text = (ROOT / "docs" / "examples" / "building.csv").read_text()
    assert text == synthetic_building.as_csv(synthetic_building.scans())
    assert len(re.findall(r"^B1-000,", text, re.MULTILINE)) > 3
