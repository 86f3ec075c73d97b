"""The page in a real browser: a picture forms, its seed is kept, and the gallery brings it back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import handmade_diffusion
from tests.support.running_server import RunningServer, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PATIENCE = 60_000  # milliseconds for one answer; a loaded machine is slow, and that is not what is tested
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[RunningServer]:
    models = tmp_path / "models"
    models.mkdir()
    handmade_diffusion.add_text_to_image(models, "shapes_full")
    with running(models, tmp_path / "server", {"repository": {"poll_seconds": 0.0}}) as started:
        yield started


@pytest.fixture
def page(pictures: RunningServer) -> Iterator[Any]:
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
        opened.goto(f"{pictures.url}/pictures")
        yield opened
        browser.close()
    assert [line for line in problems if "400" not in line] == []


def test_a_picture_forms_is_kept_and_comes_back(page: Any) -> None:
    sources = "[...document.querySelectorAll('#answer img')].map((image) => image.src)"
    page.evaluate(
        "window.seen = new Set(); new MutationObserver(() => document.querySelectorAll('#answer img')"
        ".forEach((image) => window.seen.add(image.src))).observe(document.getElementById('answer'),"
        "{subtree: true, attributes: true, childList: true})"
    )
    page.wait_for_function("document.querySelectorAll('#model option').length > 2")
    page.select_option("#model", "shapes_full")
    page.click("#examples >> text=a red apple")
    page.wait_for_selector("#answer dl")
    assert page.evaluate("[...window.seen].filter((source) => source.startsWith('data:')).length") == 4
    (first,) = page.evaluate(sources)
    assert "shapes_full" in page.inner_text("#answer")
    assert page.evaluate("document.querySelector('#answer img').naturalWidth") == 64

    seed = page.inner_text("#answer figcaption").removeprefix("seed ")
    page.click("#answer >> text=Keep this seed")
    assert page.input_value("#seed") == seed
    assert f'"seed":{seed}' in page.inner_text("#curl")
    page.click("#go")
    page.wait_for_selector("#answer dl")
    assert page.evaluate(sources) == [first]

    page.fill("#prompt", "a green car")
    page.fill("#seed", "")
    page.fill("#count", "3")
    page.select_option("#size", "64x32")
    page.click("#go")
    page.wait_for_selector("#answer dl")
    assert page.locator("#answer figure").count() == 3
    assert page.evaluate("document.querySelector('#answer img').naturalHeight") == 32
    assert page.locator("#gallery img").count() == 4

    page.reload()
    page.click("#gallery button >> nth=3")
    page.wait_for_selector("#answer dl")
    assert page.evaluate(sources) == [first]
    assert page.input_value("#prompt") == "a red apple"
    page.click("text=Forget them")
    assert page.locator("#gallery img").count() == 0

    page.fill("#prompt", "   ")
    page.click("#go")
    assert "Say what" in page.inner_text("#answer .alarm")
    page.fill("#prompt", "a cat")
    page.fill("#negative", "a car") if page.is_visible("#negative") else page.evaluate(
        "document.getElementById('negative').value = 'a car'"
    )
    page.fill("#guidance", "1")
    page.click("#go")
    page.wait_for_selector("#answer .alarm >> text=negative_prompt")
