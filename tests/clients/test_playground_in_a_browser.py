"""The playground in a real browser: what a person sees who uses it, and that nothing in it fails unseen."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import RunningServer, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).parents[2]
ALONE = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # milliseconds for one answer; a loaded machine is slow, and that is not what is tested


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(ROOT / "model_repository", tmp_path_factory.mktemp("shipped")) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(ALONE))
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose errors, in scripts, in the console or of its policy, fail the test."""
    opened = browser.new_page(viewport={"width": 1000, "height": 900})
    opened.set_default_timeout(PATIENCE)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    yield opened
    opened.close()
    assert problems == []


def mosaic() -> bytes:
    """A 16-bit NPY mosaic of smooth colours."""
    rows, columns = np.mgrid[0:96, 0:128]
    samples = 30_000 + 20_000 * np.sin(rows / 9) * np.cos(columns / 13)
    buffer = io.BytesIO()
    np.save(buffer, samples.astype(np.uint16))
    return buffer.getvalue()


def test_a_photo_gets_its_names(shipped: RunningServer, page: Any) -> None:
    page.goto(f"{shipped.url}/")
    page.select_option("#model", "grocery")
    page.set_input_files("#file", ROOT / "docs/examples/bananas.jpg")
    page.wait_for_selector("#answer li")
    assert page.inner_text("#answer li:first-child b") == "Banana"
    assert page.locator("#answer li").count() == 5
    assert "/v1/classify" in page.inner_text("#curl")
    assert page.is_visible("#drop img")


def test_what_is_no_photo_is_refused_in_words(shipped: RunningServer, page: Any) -> None:
    page.goto(f"{shipped.url}/")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a picture"})
    page.wait_for_selector("#answer .alarm")
    assert "not an image" in page.inner_text("#answer")


def test_a_capture_becomes_a_picture_with_its_doubt(shipped: RunningServer, page: Any) -> None:
    page.goto(f"{shipped.url}/")
    page.click("nav >> text=Raw captures")
    page.set_input_files(
        "#file", {"name": "capture.npy", "mimeType": "application/octet-stream", "buffer": mosaic()}
    )
    page.click("summary >> text=For a mosaic")
    page.select_option("#cfa", "GRBG")
    page.select_option("#render", "srgb")
    page.click("#go")
    page.wait_for_selector("figure.doubt img")
    for kind in ("picture", "doubt"):
        shown = page.locator(f"figure.{kind} img")
        shown.scroll_into_view_if_needed()
        page.wait_for_timeout(50)
        box = shown.bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(128 / 96, rel=0.02)
    assert "cfa='GRBG'" in page.inner_text("#curl")
