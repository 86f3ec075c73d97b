"""The two commands on real scans: a published building, and a study that goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from nonet.cli.main import main
from nonet.research.fis_one import commands, study
from nonet.research.fis_one.data import load_building
from nonet.research.fis_one.recipes import PAPER
from nonet.research.systems import EvaluateOptions, TrainOptions, check_preset, find
from nonet.runtime.errors import InvalidArgument
from tests.support.synthetic_wifi import QUICK, QUICK_PAPER

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_partitions")]


@pytest.fixture
def few_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The surveyed buildings with sixty scans a floor: by the same path, in a third of the time."""
    monkeypatch.setattr(
        commands, "load_building", lambda name, root=None: load_building(name, root).balanced(60, seed=0)
    )


@pytest.mark.usefixtures("few_scans")
def test_training_publishes_the_building(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainOptions(
        preset="tiny", repository=tmp_path / "models", runs=tmp_path / "runs", data=data_root
    )
    commands.train(options)
    assert (tmp_path / "models" / "floors_cetc331" / "1" / "model.onnx").is_file()
    assert list((tmp_path / "runs").rglob("*.safetensors")) == []
    printed = capsys.readouterr().out
    assert "published floors_cetc331 version 1" in printed
    assert "chance" not in printed


@pytest.mark.usefixtures("few_scans")
def test_what_learned_no_more_than_chance_is_not_published(
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(commands.PRESETS, "tiny", dataclasses.replace(QUICK, steps=20))
    monkeypatch.setenv("NONET_DATA", str(data_root))
    line = ["train", "fis_one", "--repository", str(tmp_path / "models"), "--runs", str(tmp_path / "runs")]
    assert main(line) == 1
    refused = capsys.readouterr()
    assert "not published" in refused.err
    assert "chance" in refused.err
    assert "--preset default" in refused.err
    assert "published floors" not in refused.out
    assert not (tmp_path / "models").exists()
    assert main([*line, "--no-publish"]) == 0
    assert "did not learn more than chance" in capsys.readouterr().out


def test_a_study_goes_on_where_it_was_stopped(
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NONET_DATA", str(data_root))
    quick = {"FIS-ONE, default": QUICK, "FIS-ONE, paper": dataclasses.replace(QUICK_PAPER, steps=50)}
    monkeypatch.setattr(study, "FITS", quick)
    monkeypatch.setattr(study, "DEFAULT", QUICK)
    monkeypatch.setattr(commands, "METHODS", (*quick, *study.BASELINES, study.CEILING, study.SERVING))
    output = tmp_path / "fis_one.json"
    options = EvaluateOptions(repository=tmp_path, split="cetc331/40", output=output, seeds=1)
    commands.evaluate(options)
    first = json.loads(output.read_text())
    assert first["seeds"] == 1
    assert {row["method"] for row in first["rows"]} == set(commands.METHODS)
    by_method = {row["method"]: row for row in first["rows"]}
    assert by_method["FIS-ONE, default"]["accuracy"] > 0.9
    assert by_method[study.CEILING]["accuracy"] > 0.9
    assert by_method[study.SERVING]["accuracy_new"] > 0.9
    assert "| cetc331/40 | FIS-ONE, default | 1 |" in output.with_suffix(".md").read_text()
    commands.evaluate(options)
    assert json.loads(output.read_text())["rows"] == first["rows"]
    assert "FIS-ONE, default" in capsys.readouterr().out


def test_a_study_of_one_building_and_method_tells_each_row(
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NONET_DATA", str(data_root))
    output = tmp_path / "one.json"
    line = ["evaluate", "fis_one", "--variant", "cetc331/20", "--method", "Ward on RSS", "--seeds", "2"]
    assert main([*line, "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 rows to measure"
    assert printed[1].startswith("1 of 2: cetc331/20, Ward on RSS, seed 0: {")
    assert printed[2].startswith("2 of 2: cetc331/20, Ward on RSS, seed 1: {")
    written = json.loads(output.read_text())
    assert {(row["case"], row["method"]) for row in written["rows"]} == {("cetc331/20", "Ward on RSS")}
    assert written["command"] == (
        "nonet evaluate fis_one --variant cetc331/20 --method 'Ward on RSS' --seeds 2"
    )
    assert main([*line, "--method", "SVD-64 + Ward", "--output", str(output)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "2 rows to measure, 2 are there already"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["fis_one", "--variant", "mall"], 1, "unknown building 'mall'; known: 5cd56bb5, 5cd969be/164,"),
        (["fis_one", "--variant", "cetc331/many"], 1, "unknown building 'cetc331/many'; known: "),
        (["fis_one", "--variant", "cetc331/0"], 1, "unknown building 'cetc331/0'; known: "),
        (["fis_one", "--split", "cetc331,mall"], 1, "unknown case 'mall'; known: test, 5cd56bb5,"),
        (
            ["fis_one", "--method", "ward"],
            1,
            "unknown method 'ward'; known: FIS-ONE, default; FIS-ONE, paper;",
        ),
        (["fis_one", "--variant", "uji0", "--split", "uji1"], 1, "either"),
        (
            ["fasternet", "--variant", "t0"],
            2,
            "--variant is for fis_one, tasfar, tvconv, not for 'fasternet'",
        ),
        (["wild_jdd", "--method", "x"], 2, "--method is for fis_one, tasfar, tvconv, not for 'wild_jdd'"),
    ],
)
def test_wrong_choices_of_an_evaluation_name_the_right_ones(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words]) == status
    assert said in capsys.readouterr().err


def test_wrong_options_are_refused_with_what_is_known(tmp_path: Path) -> None:
    options = TrainOptions(preset="tiny", repository=tmp_path, runs=tmp_path, variant="mall")
    with pytest.raises(InvalidArgument, match="cetc331"):
        commands.train(options)
    with pytest.raises(InvalidArgument, match="NONET_DATA"):
        commands.train(dataclasses.replace(options, variant=None, data=tmp_path / "nothing"))
    with pytest.raises(InvalidArgument, match="unknown case"):
        commands.evaluate(EvaluateOptions(repository=tmp_path, split="mall"))


def test_the_registry_names_every_preset() -> None:
    system = find("fis_one")
    assert {"tiny", "default", "paper"} == set(system.presets)
    for preset in system.presets:
        check_preset(system, preset)


def test_the_papers_recipe_is_that_of_the_paper() -> None:
    assert (PAPER.networks, PAPER.clustering, PAPER.attention) == (1, "ward", "sampling+aggregate")
    assert (PAPER.rule.weight, PAPER.rule.weakest, PAPER.fan_out) == ("offset", -90.0, (10, 25))


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    right = np.array([True] * 7 + [False] * 3)
    assert study.calibration_error(np.full(10, 0.7), right) == pytest.approx(0)
    assert study.calibration_error(np.full(10, 1.0), right) == pytest.approx(0.3)
