"""The two commands from photographs to tables, on a small data folder."""

import importlib.util
import json

import pytest
import torch

from nonet.research.systems import SYSTEMS, EvaluateOptions, TrainOptions, check_preset, check_timed, find
from nonet.research.wild_jdd import checkpoint, commands
from nonet.research.wild_jdd.presets import PRESETS
from nonet.runtime.errors import InvalidArgument, NotFound

# colour-demosaicing imports a deprecated name of SciPy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Please import .convolve.:DeprecationWarning"),
]


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
    with pytest.raises(InvalidArgument, match="--compile"):
        commands.train(TrainOptions(**{**vars(options), "compiled": True, "data": data}))
    with pytest.raises(NotFound):
        commands.evaluate(EvaluateOptions(repository=tmp_path))
    with pytest.raises(InvalidArgument, match="unknown split"):
        commands.evaluate(EvaluateOptions(repository=tmp_path, split="train"))


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path):
    for device in ("gpu", "cuda") if not torch.cuda.is_available() else ("gpu",):
        options = TrainOptions(preset="paper", repository=tmp_path, runs=tmp_path, device=device)
        with pytest.raises(InvalidArgument, match="device"):
            commands.train(options)


@pytest.mark.parametrize("preset", ["served", "taught", "paper"])
def test_long_presets_run_on_a_device_and_for_minutes(preset, tmp_path):
    options = TrainOptions(
        preset=preset, repository=tmp_path, runs=tmp_path, minutes=0.5, device="cuda", seed=3
    )
    check_timed(SYSTEMS["wild_jdd"], options)
    config = commands.configuration(options)
    assert (config.minutes, config.seed) == (0.5, 3)
    line = commands.command_line(options, config)
    assert line == f"nonet train wild_jdd --preset {preset} --seed 3 --minutes 0.5 --device cuda"


def test_the_registry_names_every_preset():
    system = find("wild_jdd")
    assert set(system.presets) == set(PRESETS)
    with pytest.raises(InvalidArgument, match="unknown preset"):
        check_preset(SYSTEMS["wild_jdd"], "huge")
