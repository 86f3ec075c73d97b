"""From weights to a served network: graph equal to PyTorch, batch-invariant, described, measurable."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import typer
from PIL import Image
from safetensors.numpy import load_file
from torch import nn
from typer.testing import CliRunner

from nonet.cli.research import register
from nonet.research.efficientnet_lite.network import EfficientNetLite0, load_pretrained
from nonet.research.fasternet.counting import cost, parameters
from nonet.research.fasternet.evaluation import graph_size, interval, members, score
from nonet.research.fasternet.importer import PREPROCESSING
from nonet.research.fasternet.network import FasterNet, build
from nonet.research.fasternet.onnx_export import (
    ExportError,
    check_batch_invariant,
    check_equal_to_torch,
    to_onnx,
)
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.fasternet.paper import PaperRecipe, train_paper
from nonet.research.fasternet.release import Release, ServingForm, publish
from nonet.research.systems import SYSTEMS, TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import DecodedImage, preprocess
from nonet.runtime.images import Preprocessing as ServedPreprocessing
from nonet.runtime.repository.layout import VersionFolder
from nonet.runtime.repository.manifest import Preprocessing, read_manifest

LABELS = ("apple", "pear", "milk", "juice")


def release(**changes: object) -> Release:
    fields: dict[str, object] = {
        "system": "fasternet",
        "variant": "nano",
        "paper": "arXiv 2303.03667",
        "command": "test",
        "preprocessing": Preprocessing(resize=36, crop=32),
        "labels": LABELS,
        "family": "grocery",
        "facts": {"paper_imagenet_top1": 12.5},
    }
    return Release(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> FasterNet:
    torch.manual_seed(0)
    network = build("nano", 4).eval()
    for module in network.modules():  # shifts of zero would be dropped from the graph
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.uniform_(-0.2, 0.2)
    network.head.bias.data.uniform_(-0.2, 0.2)
    return network


@pytest.fixture(scope="module")
def published(network: FasterNet, tmp_path_factory: pytest.TempPathFactory) -> VersionFolder:
    return publish(tmp_path_factory.mktemp("repository"), "fasternet_nano_grocery", network, release())


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A data folder in the layout of grocery_128 with four classes in two groups."""
    root = tmp_path / "data"
    folder = root / "grocery_128"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for split in ("train", "val", "test"):
        for index in range(12):
            name = f"images/{split}{index}.png"
            Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
            rows.append([name, split, index % 4, index % 4 // 2])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "split", "fine_id", "coarse_id"], *rows])
    with (folder / "classes.csv").open("w", newline="") as file:
        names = [
            [index, name, index // 2, "fruit" if index < 2 else "drink"] for index, name in enumerate(LABELS)
        ]
        csv.writer(file).writerows([["fine_id", "fine", "coarse_id", "coarse"], *names])
    return root


def test_published_version_is_complete_and_its_check_set_holds(published: VersionFolder) -> None:
    manifest = read_manifest(published.path / "manifest.json")
    assert manifest is not None
    assert (manifest.task, manifest.family, manifest.check_set) == (
        "classification",
        "grocery",
        "check.safetensors",
    )
    assert manifest.source["variant"] == "nano"
    check = load_file(published.path / "check.safetensors")
    assert check["image"].shape == (8, 3, 32, 32)
    session = open_session(published.path / "model.onnx")
    for rows in range(1, 9):
        assert run(session, check["image"][:rows])[0].tobytes() == check["logits"][:rows].tobytes()
    config = (published.path.parent / "config.pbtxt").read_text()
    assert "max_batch_size: 16" in config
    assert "dynamic_batching" in config
    assert (published.path.parent / "labels.txt").read_text().splitlines() == list(LABELS)


def test_graph_has_neither_normalisation_nor_matrix_product_nor_paths(published: VersionFolder) -> None:
    model = onnx.load(published.path / "model.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Gemm", "MatMul"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert b".py" not in (published.path / "model.onnx").read_bytes()


def test_graph_is_counted_like_the_network(network: FasterNet, published: VersionFolder) -> None:
    weights, macs = graph_size(published.path / "model.onnx")
    assert macs == cost(network, 32).macs
    form = ServingForm(network)
    unused = sum(value.numel() for value in form.network.head.parameters())  # replaced by the 1x1 convolution
    assert weights == parameters(form) - unused


def test_a_matrix_product_is_refused_when_its_rows_depend_on_the_batch(tmp_path: Path) -> None:
    class MixesRows(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1) - image.flatten(1).mean(0, keepdim=True)

    to_onnx(MixesRows().eval(), 8, tmp_path / "bad.onnx", ("logits",))
    images = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    with pytest.raises(ExportError, match="row 0 of a batch of 2"):
        check_batch_invariant(open_session(tmp_path / "bad.onnx"), images)


def test_a_graph_that_differs_from_the_network_is_refused(
    network: FasterNet, published: VersionFolder
) -> None:
    torch.manual_seed(9)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_equal_to_torch(
            open_session(published.path / "model.onnx"), build("nano", 4).eval(), torch.randn(2, 3, 32, 32)
        )


def test_evaluation_measures_through_the_served_path(published: VersionFolder, shop: Path) -> None:
    found = members(published.path.parent.parent)
    assert [folder.model for folder, _ in found] == ["fasternet_nano_grocery"]
    row = score(shop, *found[0], "test")
    assert (row.pictures, row.paper_imagenet) == (12, 12.5)
    assert 0 <= row.fine_low <= row.fine <= row.fine_high <= 100
    assert row.coarse >= row.fine


def test_evaluate_command_prints_the_table_and_writes_results(
    published: VersionFolder, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONET_DATA", str(shop))
    app = typer.Typer()
    register(app)
    repository, output = published.path.parent.parent, shop / "out" / "results.json"
    arguments = ["evaluate", "fasternet", "--repository", str(repository), "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for part in ("fasternet_nano_grocery", "linear probe", "62.9", "75.2", "another task"):
        assert part in result.output
    content = json.loads(output.read_text())
    assert content["members"][0]["split"] == "test"
    assert content["baselines"][0]["fine"] == 62.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "fastnet"], "did you mean 'fasternet'"),
        (["train", "fasternet", "--preset", "huge"], "unknown preset 'huge'; known: tiny"),
        (["train", "fasternet", "--preset", "paper"], "needs --data"),
        (["train", "fasternet", "--preset", "paper", "--variant", "nano"], "the paper has no variant 'nano'"),
    ],
)
def test_wrong_requests_say_what_is_known(arguments: list[str], message: str) -> None:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    # A usage error is printed by the command line in a frame that may wrap it, the others are raised.
    said = " ".join(result.output.replace("│", " ").split()) + str(result.exception)
    assert message in said


def test_commands_name_the_extra_when_torch_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["train", "fasternet"])
    assert "pip install" in str(result.exception)


def test_the_command_line_and_evaluation_import_no_torch() -> None:
    modules = f"nonet.cli.research, {SYSTEMS['fasternet'].module}"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_official_preprocessing_golden_crop() -> None:
    spec = ServedPreprocessing.from_manifest(PREPROCESSING.model_dump())
    pixels = np.zeros((248, 248, 3), dtype=np.uint8)
    pixels[12:236, 12:236, 0] = 255  # exactly the crop, in red
    pixels[12, 12] = (0, 255, 0)
    out = preprocess(DecodedImage(Image.fromarray(pixels), 248, 248, "PNG"), spec)
    assert out.shape == (3, 224, 224)
    values = np.array([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], np.float32)
    np.testing.assert_allclose(
        out[:, 1:, 1:], np.broadcast_to(values[:, None, None], (3, 223, 223)), rtol=1e-6
    )
    corner = np.array([-0.485 / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225], np.float32)
    np.testing.assert_allclose(out[:, 0, 0], corner, rtol=1e-6)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (629, 1000)])
def test_interval_holds_the_proportion(right: int, count: int) -> None:
    low, high = interval(right, count)
    assert low <= 100 * right / count <= high + 1e-9
    if count == 1000:
        assert (low, high) == pytest.approx((59.86, 65.84), abs=0.05)


def test_lite0_has_the_published_size_and_takes_new_classes() -> None:
    torch.manual_seed(0)
    source = EfficientNetLite0(1000)
    assert sum(value.numel() for value in source.parameters()) == 4_652_008
    tuned = load_pretrained(source.state_dict(), 4)
    assert tuned._fc.weight.shape == (4, 1280)
    assert torch.equal(tuned._conv_stem.weight, source._conv_stem.weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_pretrained({name: value for name, value in source.state_dict().items() if "_fc" not in name})


def test_paper_recipe_trains_on_class_folders(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for index in range(4):
                noise = random.integers(-20, 20, (40, 48, 3))
                Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    recipe = PaperRecipe(8, 0.0, 0.2, magnitude=7, epochs=3, warmup_epochs=1, micro_batch=4, sizes=(32, 64))
    lines: list[dict[str, float | int | str]] = []
    options = TrainOptions("paper", tmp_path / "repository", tmp_path / "runs", data=tmp_path, publish=False)
    result = train_paper(options, lines.append, recipe)
    assert 0 <= result <= 100
    assert lines[-1]["step"] == 3
    with pytest.raises(InvalidArgument, match="needs 'train'"):
        train_paper(TrainOptions("paper", tmp_path, tmp_path, data=tmp_path / "train"), lines.append, recipe)
