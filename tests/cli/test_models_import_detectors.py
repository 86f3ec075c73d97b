"""``nonet models import DETECTOR.onnx``: exports of several frameworks, each by one command, then served."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nonet.cli.main import main
from nonet.runtime.repository.manifest import read_manifest
from nonet.services.recognition.detection.importing.seen import overlap
from tests.support import exported_detectors as exported
from tests.support.import_runs import run
from tests.support.running_server import RunningServer, running

LETTERBOX, WINDOW, STRETCH = "fit_to_window_letterbox", "fit_to_window", "standard"

ROWS: dict[str, tuple[Callable[[Path], Path], str, tuple[str, ...]]] = {
    "ultralytics": (exported.ultralytics, LETTERBOX, ()),
    "ultralytics_open": (
        lambda folder: exported.ultralytics(folder, batch="batch", sides=("height", "width")),
        LETTERBOX,
        (),
    ),
    "ultralytics_bare": (lambda folder: exported.ultralytics(folder, metadata={}), LETTERBOX, ()),
    "ultralytics_end2end": (exported.ultralytics_end2end, LETTERBOX, ()),
    "yolox": (exported.yolox, WINDOW, ()),
    "yolox_decoded": (exported.yolox_decoded, WINDOW, ()),
    "transformers_sigmoid": (exported.transformers, STRETCH, ()),
    "transformers_softmax": (exported.transformers_softmax, STRETCH, ()),
    "rf_detr": (exported.rf_detr, STRETCH, ()),
    "rt_detr": (exported.rt_detr, STRETCH, ()),
    "torchvision": (exported.torchvision, STRETCH, ("--fit", "stretch")),
    "mmdeploy": (exported.mmdeploy, WINDOW, ()),
}
"""Each export with how it must be given a picture, and with options if it cannot say all."""
ALONE = ("torchvision",)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture_for(fit: str) -> tuple[bytes, dict[str, list[float]]]:
    """128 x 64, black, with what lies in one cell of the network's square, and its boxes by label."""
    high = 16 if fit == STRETCH else 32
    patches = {"red": ([32, 0, 64, high], RED), "blue": ([96, 32, 128, 32 + high], BLUE)}
    image = Image.new("RGB", (128, 64))
    for box, colour in patches.values():
        image.paste(colour, tuple(box))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), {label: [float(each) for each in box] for label, (box, _) in patches.items()}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository into which every row is imported by one command."""
    root = tmp_path_factory.mktemp("imported")
    for name, (make, _, options) in ROWS.items():
        file = make(root / "exports" / name)
        words = ["models", "import", str(file), "--as", name, "--repository", str(root / "models"), *options]
        assert main(words) == 0, name
    return root / "models"


@pytest.fixture(scope="module")
def serving(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {"repository": {"poll_seconds": 0.0}, "scheduler": {"lanes": 1}}
    with running(imported, tmp_path_factory.mktemp("server"), settings) as started:
        yield started


def detect(server: RunningServer, data: bytes, model: str) -> list[dict[str, Any]]:
    reply = server.http.post(
        "/v1/detect", files={"image": ("image.png", data)}, data={"model": model, "score_threshold": "0.5"}
    )
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["detections"]
    return found


@pytest.mark.parametrize("name", ROWS)
def test_an_export_of_each_framework_finds_the_objects_in_pixels(name: str, serving: RunningServer) -> None:
    _, fit, _ = ROWS[name]
    data, wanted = picture_for(fit)
    found = detect(serving, data, name)
    called = {"red": "0", "blue": "2"} if name == "ultralytics_bare" else {}
    assert {each["label"] for each in found} == {called.get(label, label) for label in wanted}
    assert len(found) == 2
    boxes = {each["label"]: each["box"] for each in found}
    for label, box in wanted.items():
        np.testing.assert_allclose(boxes[called.get(label, label)], box, atol=0.01)
    assert min(each["score"] for each in found) > 0.85


@pytest.mark.parametrize("name", ROWS)
def test_the_manifest_says_how_a_picture_is_given(name: str, imported: Path) -> None:
    _, fit, _ = ROWS[name]
    manifest = read_manifest(imported / name / "1" / "manifest.json")
    assert manifest is not None
    assert manifest.task == "detection"
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.resize_type == fit
    assert manifest.preprocessing.pad_value == (114 if fit != STRETCH else 0)
    assert f"max_batch_size: {1 if name in ALONE else 16}" in (imported / name / "config.pbtxt").read_text()


def test_every_version_answers_as_its_check_set_says(imported: Path) -> None:
    assert main(["models", "verify", "--repository", str(imported)]) == 0


def test_a_published_detector_is_served_by_one_command(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """YOLOX-Nano finds in a photograph what the research code finds with it."""
    teacher = pytest.importorskip("nonet.research.detection.teacher")
    graph = data_root / "yolox_nano_coco" / "yolox_nano.onnx"
    photographs = sorted((data_root / "coco256").glob("images/*/*.jpg"))
    if not graph.is_file() or not photographs:
        pytest.skip("no YOLOX-Nano or no photographs here")
    status, out, err = run(capsys, graph, "--as", "nano", "--repository", tmp_path / "models", "--json")
    assert status == 0, err
    assert json.loads(out)["largest_batch"] == 16
    names = (graph.parent / "classes.txt").read_text().split("\n")
    with running(tmp_path / "models", tmp_path / "server", {"scheduler": {"lanes": 1}}) as server:
        for path in photographs[:3]:
            boxes, classes, scores = teacher.Teacher(graph).find(Image.open(path).convert("RGB"), 0.5)
            assert len(boxes)
            found = detect(server, path.read_bytes(), "nano")
            for box, index, score in zip(boxes, classes, scores, strict=True):
                best = max(
                    (each for each in found if each["label"] == names[index]),
                    key=lambda each: overlap(each["box"], box),
                )
                assert overlap(best["box"], box) >= 0.99
                assert best["score"] == pytest.approx(score, abs=0.01)
