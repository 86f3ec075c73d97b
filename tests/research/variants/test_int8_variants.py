"""An int8 variant: calibrated on train, measured beside its original on test, published only if it may be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nonet.cli.main import main
from nonet.research.fasternet.evaluation import graph_size
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.fasternet.onnx_session import run as run_graph
from nonet.research.variants.paired import compare
from tests.support import handmade_networks

SIDE = handmade_networks.IMAGE_SIZE


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    handmade_networks.add_classifier(root, "net", 8, family="tiny", top1=1.0)
    return root


@pytest.fixture(scope="module")
def pictures(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured noise, labelled as the original answers: it has all of them right, and coarser arithmetic has
    some of those wrong that lie between two classes."""
    original = open_session(repository / "net" / "1" / "model.onnx")
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(7)
    for split, count in (("train", 24), ("test", 240)):
        for number in range(count):
            colour, noise = random.integers(0, 256, 3), random.normal(0, 40, (SIDE, SIDE, 3))
            picture = np.clip(colour + noise, 0, 255).astype(np.uint8)
            scaled = (picture / 255 - handmade_networks.MEAN) / handmade_networks.STD
            image = scaled.transpose(2, 0, 1)[None].astype(np.float32)
            label = handmade_networks.LABELS[run_graph(original, image)[0].argmax()]
            place = root / split / label / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place)
    return root


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["models", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_variant_is_made_measured_published_and_verified(
    repository: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--repository", repository)
    words = ("quantise", "net", "--data", pictures, "--pictures", "16", "--allowed-loss", "1", "--json")
    status, out, err = run(capsys, *words, *place)
    assert status == 0, err
    made = json.loads(out)
    pair = made["pair"]
    assert made["version"] == "1"
    assert (pair["examples"], pair["first"], pair["only_second"]) == (240, 240, 0)
    assert set(made["speedup"]) == {"1", "8"}
    folder = repository / "net_int8" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["family"] == "tiny"
    assert manifest["variant"]["of"] == "net"
    assert manifest["quality"]["top1"] == pytest.approx(pair["second"] / 240, abs=1e-4)
    assert manifest["variant"]["loss"] == pytest.approx(made["loss"], abs=1e-4)
    types = {tensor.data_type for tensor in onnx.load(folder / "model.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in types
    assert graph_size(folder / "model.onnx") == graph_size(repository / "net" / "1" / "model.onnx")
    status, out, err = run(capsys, "verify", "net_int8", *place)
    assert status == 0, err
    assert "ok" in out
    status, _, err = run(capsys, "quantise", "net_int8", "--data", pictures, *place)
    assert status == 1
    assert "only an fp32 classifier" in err


def test_one_that_loses_too_much_is_not_published(
    repository: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("quantise", "net", "--as", "dull", "--data", pictures, "--repository", repository)
    status, out, err = run(capsys, *words, "--allowed-loss", "0")
    assert status == 1
    assert "not published" in out
    assert "more than the 0.00 allowed" in err
    assert not (repository / "dull").exists()


def test_pictures_that_are_not_there_or_of_no_class_are_named(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("quantise", "net", "--data", tmp_path, "--repository", repository)
    status, _, err = run(capsys, *words)
    assert status == 1
    assert "train/CLASS/*.jpg" in err
    (tmp_path / "train" / "mauve").mkdir(parents=True)
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "train" / "mauve" / "1.png")
    status, _, err = run(capsys, *words)
    assert status == 1
    assert "train/mauve is no label of the model" in err


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_paired_test_is_the_binomial_one_on_what_differs(answers: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(each) for each in zip(*answers, strict=True))
    pair = compare(first, second)
    assert pair.loss * len(answers) == pytest.approx(pair.first - pair.second)
    differ = pair.only_first + pair.only_second
    counts = [math.comb(differ, count) / 2**differ for count in range(differ + 1)]
    seen = abs(pair.only_first - pair.only_second)
    exact = sum(p for count, p in enumerate(counts) if abs(2 * count - differ) >= seen)
    assert pair.p == pytest.approx(exact)
    assert compare(second, first).p == pair.p
