"""``nonet models import SEGMENTER.onnx``: exports of several kinds, each by one command, then served."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import decode

from nonet.cli.main import main
from nonet.runtime.repository.manifest import read_manifest
from tests.support import exported_segmenters as exported
from tests.support.exported_segmenters import LABELS, export
from tests.support.import_runs import refused, run
from tests.support.running_server import RunningServer, running

# pycocotools is older than the array protocol of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PREPARED = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--interpolation", "bilinear")
STRETCH = (*PREPARED, "--fit", "stretch")


def named(folder: Path, labels: tuple[str, ...], **given: Any) -> Path:
    """An export with a file of names beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(labels))
    return export(folder / "net.onnx", **given)


ROWS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], str]] = {
    "segformer": (exported.segformer, (), "logits"),
    "torchvision": (exported.torchvision, STRETCH, "logits"),
    "model_api": (exported.model_api, ("--interpolation", "bilinear"), "probabilities"),
    "ids": (lambda folder: named(folder, LABELS, end="ids"), STRETCH, "classes"),
    "ids_four_axes": (lambda folder: named(folder, LABELS, end="ids4", batch=1), STRETCH, "classes"),
    "ids_no_background": (lambda folder: named(folder, LABELS[1:], end="ids", first=1), STRETCH, "classes"),
    "several": (
        lambda folder: named(folder, LABELS[1:], end="Sigmoid", first=1, normalisation=exported.PLAIN),
        ("--mean", "0,0,0", "--std", "1,1,1", "--interpolation", "bilinear", "--fit", "stretch"),
        "independent probabilities",
    ),
    "fixed_half": (lambda folder: named(folder, LABELS, batch=1, half=True), STRETCH, "logits"),
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository into which every row is imported by one command."""
    root = tmp_path_factory.mktemp("imported_segmenters")
    for name, (make, options, _) in ROWS.items():
        file = make(root / "exports" / name)
        words = ["models", "import", str(file), "--as", name, "--repository", str(root / "models"), *options]
        assert main(words) == 0, name
    return root / "models"


@pytest.fixture(scope="module")
def serving(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {"repository": {"poll_seconds": 0.0}, "scheduler": {"lanes": 1}}
    with running(imported, tmp_path_factory.mktemp("server"), settings) as started:
        yield started


def picture() -> tuple[bytes, dict[str, np.ndarray]]:
    """128 x 64, black with a red and a blue patch on the cells' borders, and the patches' pixels by label."""
    image = Image.new("RGB", (128, 64))
    patches = {"red": ((16, 8, 64, 40), (250, 0, 0)), "blue": ((80, 24, 112, 56), (0, 0, 250))}
    masks = {}
    for label, (box, colour) in patches.items():
        image.paste(colour, box)
        masks[label] = np.zeros((64, 128), dtype=bool)
        masks[label][box[1] : box[3], box[0] : box[2]] = True
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue(), masks


@pytest.mark.parametrize("name", ROWS)
def test_an_export_of_each_kind_marks_the_pixels(name: str, serving: RunningServer) -> None:
    data, wanted = picture()
    reply = serving.http.post("/v1/segment", files={"image": ("x.png", data)}, data={"model": name})
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["classes"] == list(LABELS[1:])
    found = {}
    for mask in answer["masks"]:
        found[mask["label"]] = decode(mask["rle"]).astype(bool)
    # A network without a background has to call black something: nothing is known of that.
    for label, mask in wanted.items():
        both = (found[label] & mask).sum()
        assert both / mask.sum() > 0.9, label
        others = np.logical_or.reduce([each for known, each in wanted.items() if known != label])
        assert not (found[label] & others).any()
        if name in ("torchvision", "model_api", "ids", "ids_four_axes", "several", "fixed_half"):
            assert both / (found[label] | mask).sum() > 0.85, label


@pytest.mark.parametrize("name", ROWS)
def test_the_manifest_says_what_the_maps_are(name: str, imported: Path) -> None:
    manifest = read_manifest(imported / name / "1" / "manifest.json")
    assert manifest is not None
    assert manifest.source["maps"] == ROWS[name][2]
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.resize_type == "standard"
    labels = (imported / name / "labels.txt").read_text().split()
    exclusive = manifest.source["masks"] == "exclusive"
    assert labels[0].strip("_") == ("background" if exclusive else "red")
    assert "max_batch_size: 16" in (imported / name / "config.pbtxt").read_text()


def test_every_version_answers_as_its_check_set_says(imported: Path) -> None:
    assert main(["models", "verify", "--repository", str(imported)]) == 0


def test_a_picture_proves_the_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = exported.segformer(tmp_path / "export")
    (tmp_path / "red.png").write_bytes(picture()[0])
    models = ("--repository", tmp_path / "models", "--picture", tmp_path / "red.png")
    status, out, _ = run(capsys, file, "--as", "net", *models, "--expect", "red")
    assert status == 0
    assert "the picture shows: " in out
    assert "blue (" in out
    status, _, err = run(capsys, file, "--as", "net", *models, "--expect", "sky")
    assert status == 2
    assert "'sky' is none of its 3 classes" in err


@pytest.mark.parametrize(
    ("make", "options", "needles"),
    [
        (exported.torchvision, (), ("every pixel", "--fit stretch", "--mean and --std", "--interpolation")),
        (lambda folder: export(folder / "net.onnx"), STRETCH, ("--labels",)),
        (lambda folder: named(folder, LABELS[:3]), STRETCH, ("3 names", "4 classes", "--labels")),
        (exported.segformer, ("--fit", "crop"), ("whole pictures", "--fit stretch")),
        (exported.segformer, ("--size", "32", "--activation", "softmax"), ("leave it out",)),
        (lambda folder: named(folder, LABELS, sides=("h", "w")), STRETCH, ("--size",)),
    ],
)
def test_what_is_open_is_asked_in_one_line(
    make: Callable[[Path], Path],
    options: tuple[str, ...],
    needles: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(capsys, tmp_path, make(tmp_path / "export"), *options, status=2, needles=needles)


def test_a_network_of_another_task_is_not_taken_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported.segformer(tmp_path / "export")
    (file.parent / "config.json").write_text('{"architectures": ["SegformerForImageClassification"]}')
    refused(capsys, tmp_path, file, "--task", "segment", status=1, needles=("no class to every pixel",))
