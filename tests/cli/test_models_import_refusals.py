"""``nonet models import NETWORK.onnx``: what cannot be served, and options that cannot be, are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.support import exported_classifiers as exported
from tests.support.import_runs import SAID, refused


def detector(folder: Path) -> Path:
    return _other(folder, (1, 84, 8400))


def _other(folder: Path, output: tuple[int, ...], outputs: int = 1, inputs: int = 1) -> Path:
    folder.mkdir()
    made = [f"out{index}" for index in range(outputs)]
    node = [helper.make_node("ConstantOfShape", ["shape"], [name]) for name in made]
    graph = helper.make_graph(
        node,
        "other",
        [helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, (1, 3, 32, 32)) for i in range(inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, output) for name in made],
        [helper.make_tensor("shape", TensorProto.INT64, [len(output)], output)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def _written(folder: Path, content: bytes, name: str = "net.onnx") -> Path:
    folder.mkdir()
    (folder / name).write_bytes(content)
    return folder / name


def _huge(folder: Path) -> Path:
    path = _written(folder, b"")
    with path.open("wb") as file:
        file.truncate(3 << 30)  # sparse
    return path


def _without_weights(folder: Path) -> Path:
    path = exported.timm_with_weights_beside(folder)
    (folder / "model.onnx.data").unlink()
    return path


def _weights_from_elsewhere(folder: Path) -> Path:
    path = exported.timm_with_weights_beside(folder)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    path.write_bytes(model.SerializeToString())
    return path


def _config(folder: Path, **changes: Any) -> Path:
    path = exported.transformers(folder, exported.VIT)
    config = json.loads((folder / "config.json").read_text()) | changes
    exported.write_json(folder / "config.json", config)
    return path


WRONG: Mapping[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "no file": (lambda folder: folder / "net.onnx", ("no file",)),
    "a folder": (
        lambda folder: (folder.mkdir(), folder)[1],
        ("is a folder and not one ONNX file", "model_index.json"),
    ),
    "empty": (lambda folder: _written(folder, b""), ("not a valid ONNX file",)),
    "text": (lambda folder: _written(folder, b"hello"), ("not a valid ONNX file",)),
    "cut short": (
        lambda folder: _written(folder, exported.export(folder.parent / "whole.onnx").read_bytes()[:200]),
        ("not a valid ONNX file",),
    ),
    "another kind of file": (
        lambda folder: _written(folder, b"TFL3" * 9, "net.tflite"),
        ("not a valid ONNX",),
    ),
    "larger than ONNX can be": (_huge, ("larger than 2 GB",)),
    "weights missing": (_without_weights, ("model.onnx.data", "missing")),
    "weights from elsewhere": (_weights_from_elsewhere, ("../secret", "not beside it")),
    "a detector": (detector, ("[1, 84, 8400]", "another task")),
    "no detector, but called so": (lambda folder: exported.ultralytics(folder, "detect"), ("no detector",)),
    "several outputs": (lambda folder: _other(folder, (1, 5), outputs=2), ("one output, this has 2",)),
    "several inputs": (lambda folder: _other(folder, (1, 5), inputs=2), ("one input, this has 2",)),
    "one number": (lambda folder: _other(folder, (1, 1)), ()),
    "sigmoid": (lambda folder: exported.ultralytics(folder, end="Sigmoid"), ("several classes at once",)),
    "multi-label": (
        lambda folder: _config(folder, problem_type="multi_label_classification"),
        ("several classes at once",),
    ),
    "a transformers detector": (
        lambda folder: _config(folder, architectures=["DetrForObjectDetection"]),
        ("no detector that is known",),
    ),
    "one more class than named": (
        lambda folder: _config(folder, id2label={str(index): f"class {index}" for index in range(6)}),
        ("6 classes, it gives 5",),
    ),
    "holes in the indices": (lambda folder: _config(folder, id2label={"0": "a", "7": "b"}), ("indices",)),
    "a backbone": (
        lambda folder: (
            exported.timm(folder),
            exported.write_json(folder / "config.json", {"num_classes": 0, "pretrained_cfg": {}}),
        )[0],
        ("backbone",),
    ),
    "a configuration that is none": (
        lambda folder: (exported.timm(folder), (folder / "config.json").write_text("{"))[0],
        ("config.json", "JSON"),
    ),
    "grey pictures": (
        lambda folder: exported.timm(folder, input_size=[1, 32, 32]),
        ("input_size",),
    ),
    "oblong pictures": (
        lambda folder: exported.ultralytics(folder, shape=(1, 3, 32, 64)),
        ("64 x 32", "square"),
    ),
    "pictures larger than the limit": (
        lambda folder: exported.ultralytics(folder, shape=(1, 3, 9999, 9999)),
        ("9999", "4096"),
    ),
    "one channel": (
        lambda folder: _one_channel(folder),
        ("three colours",),
    ),
    "padding": (lambda folder: exported.timm(folder, crop_mode="border"), ("border",)),
    "nearest pixels": (
        lambda folder: exported.transformers(folder, exported.VIT | {"resample": 0}),
        ("resample",),
    ),
}


def _one_channel(folder: Path) -> Path:
    path = exported.ultralytics(folder)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_served_is_refused_in_a_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, needles = WRONG[case]
    words = () if case != "one number" else SAID
    refused(capsys, tmp_path, make(tmp_path / "export"), *words, status=1, needles=needles)


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (("--mean", "0.5"), ("--mean", "three numbers")),
        (("--mean", "a,b,c"), ("--mean",)),
        (("--std", "0,0,0"), ("std",)),
        (("--fit", "pad"), ("--fit", "crop or stretch")),
        (("--channels", "gray"), ("--channels",)),
        (("--layout", "nhwc"), ("nchw", "--layout")),
        (("--size", "64"), ("32 px",)),
        (("--size", "0"), ("--size",)),
        (("--resize", "8"), ("resize",)),
        (("--resize", "99999"), ("--resize",)),
        (("--activation", "softmax"), ("logits",)),
        (("--expect", "red"), ("--picture",)),
        (("--picture", "nothing.png"), ("nothing.png",)),
        (("--labels", "nothing.txt"), ("nothing.txt",)),
        (("--variant", "t0"), ("--variant", "checkpoint")),
        (("--task", "hearing"), ("--task", "classification")),
    ],
)
def test_an_option_that_cannot_be_is_named(
    words: tuple[str, ...], needles: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, tmp_path, exported.timm(tmp_path / "export"), *words, status=2, needles=needles)


def test_a_picture_that_shows_something_else_stops_the_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported.timm(tmp_path / "export")
    picture = exported.picture(tmp_path / "picture.png", "red")
    words = (file, "--picture", picture, "--expect")
    refused(capsys, tmp_path, *words, "green", status=2, needles=("'red'", "not 'green'"))
    refused(capsys, tmp_path, *words, "grean", status=2, needles=("grean", "none of its 5 classes"))


def test_options_of_networks_are_refused_for_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, tmp_path, "t0.pth", "--mean", "0,0,0", status=2, needles=("--mean", "ONNX"))
