"""The playground in a real browser: what a person sees who uses it, and that nothing in it fails unseen."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nonet.services.recognition.segmentation.overlay import colour
from nonet.services.recognition.segmentation.run_length import counts_of, counts_text
from tests.support import handmade_captures
from tests.support.running_server import RunningServer, eventually, running

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


def long_mosaic() -> dict[str, Any]:
    """A capture over the size from which on the page makes a job of it: 2.1 megapixels."""
    samples = np.random.default_rng(0).integers(9_000, 50_000, (1200, 1760), dtype=np.uint16)
    buffer = io.BytesIO()
    np.save(buffer, samples)
    return {"name": "long.npy", "mimeType": "application/octet-stream", "buffer": buffer.getvalue()}


def test_a_long_capture_shows_how_far_it_is_and_becomes_a_picture(shipped: RunningServer, page: Any) -> None:
    page.goto(f"{shipped.url}/raw")
    page.set_input_files("#file", long_mosaic())
    page.click("summary >> text=For a mosaic")
    page.select_option("#cfa", "RGGB")
    assert "respond-async" in page.inner_text("#curl")
    page.click("#go")
    page.wait_for_selector("#answer progress")
    bar = "Number(document.querySelector('#answer progress')?.value ?? 0)"
    eventually(lambda: page.evaluate(bar) > 0.1, "the bar has moved")
    shown = page.inner_text("#answer")
    assert "developing" in shown
    assert "long.npy" in shown
    page.wait_for_selector("figure.picture img")
    width = "document.querySelector('figure.picture img').naturalWidth"
    eventually(lambda: page.evaluate(width) == 1760, "the picture is shown")
    assert page.is_visible("#answer >> text=Standard deviation, too")
    (job,) = shipped.http.get("/v1/jobs").json()["data"]
    assert (job["kind"], job["state"]) == ("raw.develop", "succeeded")


def test_a_long_capture_is_cancelled_by_its_button_and_by_the_next_one(
    shipped: RunningServer, page: Any
) -> None:
    page.goto(f"{shipped.url}/raw")
    page.set_input_files("#file", long_mosaic())
    page.click("summary >> text=For a mosaic")
    page.select_option("#cfa", "RGGB")
    page.click("#go")
    page.click("#answer >> text=Cancel")
    page.wait_for_selector("#answer .alarm")
    assert "Cancelled" in page.inner_text("#answer")
    page.click("#go")
    page.wait_for_selector("#answer progress")
    page.set_input_files(
        "#file", {"name": "capture.npy", "mimeType": "application/octet-stream", "buffer": mosaic()}
    )
    page.click("#go")
    page.wait_for_selector("figure.doubt img")

    def over() -> bool:
        jobs = shipped.http.get("/v1/jobs?state=queued,running").json()["data"]
        return jobs == []

    eventually(over, "nothing is worked on for nobody")


def test_a_long_capture_that_nobody_works_on_is_waited_for(browser: Any, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    handmade_captures.add_restorer(models, "stand_in")
    settings = {"jobs": {"concurrency": 0}, "scheduler": {"default_timeout": 300.0}}
    with running(models, tmp_path / "server", settings) as server:
        page = browser.new_page()  # the console of a page names every refusal an error
        page.set_default_timeout(PATIENCE)
        answers: list[tuple[str, int]] = []
        page.on("response", lambda reply: answers.append((reply.request.method, reply.status)))
        page.goto(f"{server.url}/raw")
        page.set_input_files("#file", long_mosaic())
        page.click("summary >> text=For a mosaic")
        page.select_option("#cfa", "RGGB")
        page.click("#go")
        page.wait_for_selector("figure.picture img")
        width = "document.querySelector('figure.picture img').naturalWidth"
        eventually(lambda: page.evaluate(width) == 1760, "the picture is shown")
        assert [status for method, status in answers if method == "POST"] == [503, 200]
        page.close()


def test_a_long_file_that_is_no_capture_is_refused_in_words(shipped: RunningServer, browser: Any) -> None:
    page = browser.new_page()  # the console of a page names every refusal an error
    page.goto(f"{shipped.url}/raw")
    page.set_input_files(
        "#file", {"name": "long.txt", "mimeType": "text/plain", "buffer": b"no capture" * 500_000}
    )
    page.click("#go")
    page.wait_for_selector("#answer .alarm")
    assert "not a raw capture" in page.inner_text("#answer")
    page.close()


def test_a_picture_gets_its_masks(shipped: RunningServer, page: Any) -> None:
    """The answer is listed; masks are drawn on their pixels in the colours of the server's overlay."""
    grey = io.BytesIO()
    Image.new("RGB", (26, 22), (100, 100, 100)).save(grey, "PNG")
    page.goto(f"{shipped.url}/segment")
    page.set_input_files("#file", {"name": "eye.png", "mimeType": "image/png", "buffer": grey.getvalue()})
    page.wait_for_selector("#answer dl")
    assert "ascan_disc_cup" in page.inner_text("#answer dl")
    assert "26 x 22" in page.inner_text("#answer dl")
    assert page.inner_text("#answer").count("optic") == 2
    assert "Accept: image/png" in page.inner_text("#curl")
    assert page.evaluate("[0, 1, 2, 3, 4, 5].map(colour)") == [list(colour(index)) for index in range(6)]
    mask = np.zeros((22, 26), bool)
    mask[3:9, 4:20] = mask[15, 1] = mask[0, 25] = True
    counts = counts_text(counts_of([mask.ravel(order="F")]))
    answer = {"classes": ["a", "b"], "masks": [{"label": "b", "rle": {"size": [22, 26], "counts": counts}}]}
    page.evaluate("(answer) => paint(at('drop').querySelector('canvas'), answer)", answer)
    drawn = "Array.from(at('drop').querySelector('canvas').getContext('2d').getImageData(0, 0, 26, 22).data)"
    pixels = np.array(page.evaluate(drawn)).reshape(22, 26, 4)[..., :3]
    expected = np.where(mask[..., None], 45 + 0.55 * np.array(colour(1)), 100)
    assert np.abs(pixels - expected).max() <= 1


def test_objects_are_drawn_on_the_photo(shipped: RunningServer, page: Any) -> None:
    page.goto(f"{shipped.url}/")
    page.click("nav >> text=Objects")
    page.fill("#least", "0.05")
    page.select_option("#model", "coco")
    page.set_input_files("#file", ROOT / "docs/examples/bananas.jpg")
    page.wait_for_selector("svg.boxes rect")
    assert "/v1/detect" in page.inner_text("#curl")
    view = page.get_attribute("svg.boxes", "viewBox")
    width, height = (int(each) for each in view.split()[2:])
    assert page.evaluate("document.querySelector('#drop img').naturalWidth") == width
    for box in page.query_selector_all("svg.boxes rect"):
        x, y, w, h = (float(box.get_attribute(name)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    assert page.locator("svg.boxes rect").count() == page.locator("#answer li").count()
