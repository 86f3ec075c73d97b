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
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.fasternet.onnx_session import run as run_graph
from nonet.research.variants.paired import compare
from tests.support.colour_classifier import COLOURS, TEACHER, pixels, publish_teacher


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish_teacher(root)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colours")
    for split, seed in (("train", 1), ("test", 2)):
        shown, labels = pixels(24, seed)
        for number, (picture, label) in enumerate(zip(shown, labels, strict=True)):
            place = root / split / list(COLOURS)[label] / f"{number}.png"
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
    status, out, err = run(
        capsys, "quantise", TEACHER, "--data", pictures, "--pictures", "16", "--json", *place
    )
    assert status == 0, err
    made = json.loads(out)
    assert made["version"] == "1"
    assert made["pair"]["examples"] == 24
    assert set(made["speedup"]) == {"1", "8"}
    folder = repository / f"{TEACHER}_int8" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["family"] == "colours"
    assert manifest["variant"]["of"] == TEACHER
    assert manifest["quality"]["top1"] == pytest.approx(made["pair"]["second"] / 24, abs=1e-4)
    assert manifest["variant"]["loss"] == pytest.approx(made["loss"], abs=1e-4)
    types = {tensor.data_type for tensor in onnx.load(folder / "model.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in types
    status, out, err = run(capsys, "verify", f"{TEACHER}_int8", *place)
    assert status == 0, err
    assert "ok" in out
    status, _, err = run(capsys, "quantise", f"{TEACHER}_int8", "--data", pictures, *place)
    assert status == 1
    assert "only an fp32 classifier" in err


def test_one_that_loses_too_much_is_not_published(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures between two colours, labelled as the original answers: it has all of them right, and coarser
    arithmetic, calibrated on black, has some wrong."""
    original = open_session(repository / TEACHER / "1" / "model.onnx")
    names = list(COLOURS)
    for colour in names:
        (tmp_path / "train" / colour).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "train" / colour / "black.png")
    for number, share in enumerate(np.linspace(0, 1, 300)):
        plain = share * np.array(COLOURS["red"]) + (1 - share) * np.array(COLOURS["green"])
        picture = np.broadcast_to(plain.round().astype(np.uint8), (32, 32, 3))
        image = ((picture.transpose(2, 0, 1) / 255 - 0.5) / 0.25).astype(np.float32)[None]
        place = tmp_path / "test" / names[run_graph(original, image)[0].argmax()] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place)
    words = ("quantise", TEACHER, "--as", "dull", "--data", tmp_path, "--repository", repository)
    status, out, err = run(capsys, *words, "--allowed-loss", "0.001")
    assert status == 1
    assert "not published" in out
    assert "more than the 0.10 allowed" in err
    assert not (repository / "dull").exists()


def test_pictures_that_are_not_there_or_of_no_class_are_named(
    repository: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("quantise", TEACHER, "--data", tmp_path, "--repository", repository)
    status, _, err = run(capsys, *words)
    assert status == 1
    assert "train/CLASS/*.jpg" in err
    (tmp_path / "train" / "mauve").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "train" / "mauve" / "1.png")
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
