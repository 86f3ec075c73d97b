"""The page in a real browser: a file goes up, a density map forms while the job runs, the outcome is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import handmade_regressors as handmade
from tests.support.adapt_worker import SLOW
from tests.support.adapting_gateway import adapting_settings
from tests.support.running_server import RunningServer, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PATIENCE = 60_000  # milliseconds for one answer; a loaded machine is slow, and that is not what is tested
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningServer]:
    handmade.publish_linear(tmp_path / "models", "prices", companions=True)
    with running(tmp_path / "models", tmp_path / "server", adapting_settings()) as started:
        yield started


@pytest.fixture
def page(gateway: RunningServer) -> Iterator[Any]:
    """The page; an error in its script, the console or its policy fails the test."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = browser.new_page()
        opened.set_default_timeout(PATIENCE)
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        opened.goto(f"{gateway.url}/adapt")
        yield opened
        browser.close()
    assert problems == []


def test_the_map_forms_and_the_outcome_is_told(page: Any, gateway: RunningServer, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(handmade.table(np.arange(30, dtype=np.float32).reshape(10, 3)))
    page.wait_for_selector("#model option[value=prices]", state="attached")
    page.set_input_files("#file", str(rows))
    page.fill("#shadow", "40")
    assert "-F shadow=40" in page.inner_text("#curl")
    # The page sends no seed; the slow work of the tests is that of one.
    page.route("**/v1/adapt/*", lambda route: route.continue_(url=f"{route.request.url}?seed={SLOW}"))
    page.click("#go")
    page.wait_for_selector("#map svg rect")
    assert "running" in page.inner_text("#job").lower()
    page.wait_for_selector("#job >> text=accepted")
    assert "prices, version 2" in page.inner_text("#job")

    page.fill("#rows", "1, 2, 3")
    page.click("#tell")
    page.wait_for_selector("#answer table")
    assert "21.0" in page.inner_text("#answer")
