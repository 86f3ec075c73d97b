"""The two commands from photographs to tables, on a small data folder made here."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image

from nonet.research.systems import SYSTEMS, EvaluateOptions, TrainOptions, check_preset, find
from nonet.research.wild_jdd import checkpoint, commands
from nonet.research.wild_jdd.presets import PRESETS
from nonet.runtime.errors import InvalidArgument, NotFound

# colour-demosaicing imports a deprecated name of SciPy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Please import .convolve.:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    sets = {
        "bsds500_train": (12, "jpg"),
        "sunhays80_half": (11, "webp"),
        "kodak": (1, "png"),
        "mcmaster": (1, "png"),
    }
    for name, (count, suffix) in sets.items():
        (root / name).mkdir()
        for index in range(count):
            coarse = generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(
                root / name / f"{index:02d}.{suffix}"
            )
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    options = TrainOptions(
        preset="tiny", repository=folder / "repository", runs=folder / "runs", data=data, seed=1
    )
    commands.train(options)
    return options


def test_training_publishes_a_version_that_evaluation_reads(trained, data, monkeypatch, tmp_path, capsys):
    assert (trained.repository / "wild_jdd" / "1" / "model.onnx").is_file()
    assert (trained.runs / "tiny" / "checkpoint.safetensors").is_file()
    manifest = json.loads((trained.repository / "wild_jdd" / "1" / "manifest.json").read_text())
    assert manifest["quality"]["psnr_sigma_0"] > manifest["quality"]["psnr_sigma_25"] > 10
    assert "held-out" in manifest["quality"]["measured_on"]
    monkeypatch.setenv("NONET_DATA", str(data))
    output = tmp_path / "results.json"
    commands.evaluate(EvaluateOptions(repository=trained.repository, output=output))
    results = json.loads(output.read_text())
    assert {entry["set"] for entry in results["scores"]} == {"kodak", "mcmaster"}
    assert results["coverage"]["kodak"]["all"].keys() == {"50", "90", "95"}
    assert results["version"] == "1"
    printed = capsys.readouterr().out
    assert "| kodak | Wild-JDD (blind) |" in printed
    if importlib.util.find_spec("matplotlib"):
        assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "not drawn" in printed


def test_a_finished_run_resumes_to_its_end_at_once(trained):
    path = trained.runs / "tiny" / "checkpoint.safetensors"
    tensors, facts = checkpoint.load(path)
    again = TrainOptions(**{**vars(trained), "resume": True, "publish": False})
    commands.train(again)
    again_tensors, again_facts = checkpoint.load(path)
    assert again_facts == facts
    assert again_tensors.keys() == tensors.keys()
    assert all(torch.equal(again_tensors[name], tensor) for name, tensor in tensors.items())


def test_wrong_options_are_refused(tmp_path, data):
    options = TrainOptions(preset="tiny", repository=tmp_path / "r", runs=tmp_path / "runs", data=tmp_path)
    with pytest.raises(InvalidArgument, match="bsds500_train"):
        commands.train(options)
    with pytest.raises(InvalidArgument, match="no variants"):
        commands.train(TrainOptions(**{**vars(options), "variant": "t0", "data": data}))
    with pytest.raises(NotFound):
        commands.evaluate(EvaluateOptions(repository=tmp_path))
    with pytest.raises(InvalidArgument, match="unknown split"):
        commands.evaluate(EvaluateOptions(repository=tmp_path, split="train"))


def test_the_registry_names_every_preset():
    system = find("wild_jdd")
    assert set(system.presets) == set(PRESETS)
    with pytest.raises(InvalidArgument, match="unknown preset"):
        check_preset(SYSTEMS["wild_jdd"], "huge")
