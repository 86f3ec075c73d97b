"""The page in a real browser: several expressions are typed, and their boxes appear in colours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.grounding.conftest import BOTH, CAT, DOG
from tests.support.running_server import RunningServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PATIENCE = 60_000  # milliseconds for one answer; a loaded machine is slow, and that is not what is tested
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def page(grounding: RunningServer) -> Iterator[Any]:
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
        opened.goto(f"{grounding.url}/ground")
        yield opened
        browser.close()
    assert [line for line in problems if "400" not in line] == []


def boxes(page: Any) -> list[list[float]]:
    read = "(all) => all.map((each) => ['x', 'y', 'width', 'height'].map((name) => +each.getAttribute(name)))"
    found: list[list[float]] = page.eval_on_selector_all("#answer svg rect", read)
    return found


def test_each_expression_gets_its_colour_and_its_box(page: Any) -> None:
    assert page.is_disabled("#go")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": BOTH})
    page.fill("#expressions", "the dog\n\nthe cat\ntax return")
    page.click("#go")
    page.wait_for_selector("#answer li")
    sides = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (DOG, CAT)]
    assert boxes(page) == sides
    colours = page.eval_on_selector_all(
        "#answer svg rect", "(all) => all.map((each) => each.getAttribute('stroke'))"
    )
    assert len(set(colours)) == 2
    lines = page.locator("#answer li").all_inner_texts()
    assert [line.split("\n")[0] for line in lines] == ["the dog", "the cat", "tax return"]
    assert "nothing here" in lines[2]
    assert "-F expressions='the dog' -F expressions='the cat'" in page.inner_text("#curl")
    assert page.is_visible("#answer svg image")

    page.fill("#expressions", "something like a cat")
    page.fill("#instances", "2")
    page.click("#go")
    page.wait_for_selector("#answer li:has-text('something like a cat')")
    assert len(boxes(page)) == 2


def test_a_refusal_is_told_in_words(page: Any) -> None:
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": BOTH})
    page.fill("#expressions", "x" * 2001)
    page.click("#go")
    page.wait_for_selector("#answer .alarm")
    assert "at most 2000" in page.inner_text("#answer")
