"""``nonet models import DETECTOR.onnx``: what is open is one question, what cannot be served is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from nonet.runtime.network_import import (
    Imported,
    ImportOptions,
    NetworkOfAnotherTask,
    NetworkRefused,
    NetworkUnclear,
    Publish,
    opened,
)
from nonet.services.recognition.detection.importing.seen import overlap
from tests.support import exported_classifiers
from tests.support import exported_detectors as exported
from tests.support.import_runs import refused, run

STRETCHED = ("--fit", "stretch")


def _names(folder: Path, make: Callable[[Path], Path], *names: str) -> Path:
    path = make(folder)
    (folder / "labels.txt").write_text("\n".join(names))
    return path


def _without(folder: Path, make: Callable[[Path], Path], *names: str) -> Path:
    path = make(folder)
    for name in names:
        (folder / name).unlink()
    return path


OPEN: Mapping[str, tuple[Callable[[Path], Path], tuple[str, ...], tuple[str, ...]]] = {
    "torchvision says nothing of the picture's place": (exported.torchvision, (), ("--fit",)),
    "mmdeploy without its pipeline": (
        lambda folder: exported.mmdeploy(folder, pipeline=False),
        (),
        ("--fit", "--mean and --std", "--channels", "detector of mmdeploy"),
    ),
    "a window without the level around it": (
        exported.torchvision,
        ("--fit", "window"),
        ("--pad",),
    ),
    "indices without names": (lambda folder: exported.rt_detr(folder, names=False), (), ("--labels",)),
    "transformers without its files": (
        lambda folder: _without(
            folder, exported.transformers_softmax, "config.json", "preprocessor_config.json"
        ),
        (),
        ("--activation", "--mean", "--size", "--fit"),
    ),
    "a processor that keeps the shape": (
        lambda folder: exported.transformers(
            folder,
            "DetrForObjectDetection",
            exported.DETR_PROCESSOR | {"size": {"shortest_edge": 800, "longest_edge": 1333}},
        ),
        (),
        ("--size", "--fit"),
    ),
    "other names than classes": (
        lambda folder: _names(folder, lambda f: exported.ultralytics(f, metadata={}), "one", "two"),
        (),
        ("2 names (labels.txt) for 3 classes", "--labels"),
    ),
    "neither all columns nor all but one named": (
        lambda folder: _names(
            folder, lambda f: _without(f, exported.rf_detr, "class_names.txt"), "one", "two"
        ),
        (),
        ("2 names", "4 or 3 classes"),
    ),
    "nothing found in pictures made from nothing": (
        lambda folder: exported.torchvision(folder, least=0.8),
        STRETCHED,
        ("finds nothing", "--picture"),
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_what_is_open_is_one_question(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, words, needles = OPEN[case]
    refused(capsys, tmp_path, make(tmp_path / "export"), *words, status=2, needles=("?", *needles))


def _changed(folder: Path, make: Callable[[Path], Path], change: Callable[[Any], None]) -> Path:
    path = make(folder)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def _scores_are_logits(model: Any) -> None:
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Exp"


def _boxes_are_shares(model: Any) -> None:
    """Everything within 0 to 1, as some exporters leave it."""
    last = model.graph.node[-1]
    model.graph.node[-1].op_type = "Sigmoid"
    assert last.output[0] == "output0"


WRONG: Mapping[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "a segmenter": (
        lambda folder: exported.ultralytics(folder, metadata=exported.said(task="segment")),
        ("'segment'", "not classification", "not detection"),
    ),
    "a transformers network of another task": (
        lambda folder: exported.transformers(folder, "DetrForSegmentation"),
        ("DetrForSegmentation",),
    ),
    "scores above one": (
        lambda folder: _changed(folder, exported.rt_detr, _scores_are_logits),
        ("scores run from", "not from 0 to 1"),
    ),
    "boxes that are no pixels": (
        lambda folder: _changed(folder, exported.ultralytics, _boxes_are_shares),
        ("no pixels",),
    ),
    "oblong": (lambda folder: exported.ultralytics(folder, sides=(64, 96)), ("96 x 64", "square")),
    "a layout that is not known": (
        lambda folder: exported_classifiers.ultralytics(folder, "detect"),
        ("output0 FP32 [1, 5]", "no detector that is known"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_served_is_refused_in_a_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, needles = WRONG[case]
    refused(capsys, tmp_path, make(tmp_path / "export"), status=1, needles=needles)


def test_the_task_that_is_said_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = exported.yolox(tmp_path / "yolox")
    refused(capsys, tmp_path, detector, "--task", "classify", status=1, needles=("another task",))
    refused(capsys, tmp_path, detector, "--task", "hear", status=2, needles=("--task", "detection"))
    classifier = exported_classifiers.timm(tmp_path / "timm")
    refused(capsys, tmp_path, classifier, "--task", "detect", status=1, needles=("no detector",))
    refused(capsys, tmp_path, detector, "--fit", "crop", status=2, needles=("--fit crop",))
    refused(capsys, tmp_path, detector, "--resize", "70", status=2, needles=("--resize", "--size"))
    refused(capsys, tmp_path, detector, "--size", "96", status=2, needles=("64 px",))
    words = ("--as", "net", "--repository", tmp_path / "models", "--task", "detect")
    assert run(capsys, detector, *words)[0] == 0


def test_what_a_picture_shows_is_held_against_what_is_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported.yolox(tmp_path / "export")
    image = Image.new("RGB", (128, 64))
    image.paste((255, 0, 0), (32, 32, 64, 64))
    image.save(tmp_path / "picture.png")
    words = (file, "--picture", tmp_path / "picture.png", "--expect")
    refused(capsys, tmp_path, *words, "blue", status=2, needles=("red (", "no 'blue'", "?"))
    refused(capsys, tmp_path, *words, "grey", status=2, needles=("none of its 3 classes",))
    answers = tmp_path / "answers.json"
    answers.write_text("{}")
    refused(capsys, tmp_path, *words, answers, status=2, needles=("no detections",))
    answers.write_text(json.dumps({"detections": [{"label": "red", "box": [40, 32, 64, 64]}]}))
    refused(capsys, tmp_path, *words, answers, status=2, needles=("overlaps by 0.75",))
    refused(capsys, tmp_path, *words[:3], "--channels", "rgb", "--expect", "red", status=2, needles=("blue",))
    answers.write_text(json.dumps([{"label": "red", "score": 0.9, "box": [32, 32, 64, 64]}]))
    told = (*words, answers, "--as", "net", "--repository", tmp_path / "models", "--licence", "MIT")
    status, out, err = run(capsys, *told)
    assert status == 0, err
    assert "the picture shows: red (" in out
    assert "at 32, 32, 64, 64" in out
    assert "licence: MIT" in out


def test_a_file_that_fits_two_tasks_is_asked_about_and_not_guessed(tmp_path: Path) -> None:
    def takes(file: Path) -> Publish:
        def publish(name: str, repository: Path, options: ImportOptions) -> Imported:
            return Imported(name, "1", {}, ())

        return publish

    def leaves(file: Path) -> Publish:
        raise NetworkOfAnotherTask("it has no ears")

    file = tmp_path / "net.onnx"
    with pytest.raises(NetworkUnclear, match="may be for seeing or smelling") as asked:
        opened(file, {"seeing": takes, "hearing": leaves, "smelling": takes})
    assert "--task" in asked.value.message
    assert opened(file, {"seeing": takes, "hearing": leaves})("n", tmp_path, ImportOptions()).model == "n"
    with pytest.raises(NetworkRefused, match="not hearing, since it has no ears"):
        opened(file, {"hearing": leaves, "listening": leaves})


def test_overlap_is_intersection_over_union() -> None:
    assert overlap([0, 0, 2, 2], [1, 0, 3, 2]) == pytest.approx(1 / 3)
    assert overlap([0, 0, 1, 1], [2, 2, 3, 3]) == 0.0
    assert overlap([0, 0, 0, 0], [0, 0, 0, 0]) == 0.0
