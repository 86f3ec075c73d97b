"""Training: resuming, the clock, configurations on disk, checkpoints that are not ours."""

import dataclasses

import numpy as np
import pytest
import torch

from nonet.research.wild_jdd import checkpoint
from nonet.research.wild_jdd.degradation import PriorConfig, VarianceSource
from nonet.research.wild_jdd.network import NETWORKS
from nonet.research.wild_jdd.noise import NoiseRange
from nonet.research.wild_jdd.photographs import PatchDrawer, PatchSource, TrainingSet
from nonet.research.wild_jdd.presets import PRESETS
from nonet.research.wild_jdd.train import Loss, TrainConfig, Trainer, load_network


def pictures() -> TrainingSet:
    """Smooth random pictures, so that a few steps can learn something."""
    generator = np.random.default_rng(0)
    coarse = generator.random((4, 8, 8, 3))
    images = [np.kron(image, np.ones((8, 8, 1))) for image in coarse]
    return TrainingSet(*([(image * 255).astype(np.uint8) for image in images] for _ in range(3)))


def config(**changes) -> TrainConfig:
    values = {
        "network": NETWORKS["tiny"],
        "patches": PatchSource(size=24),
        "steps": 6,
        "batch": 2,
        "border": 4,
        "warmup": 2,
    }
    return TrainConfig(**{**values, **changes})


@pytest.mark.parametrize("loss", list(Loss))
def test_a_resumed_run_equals_an_unbroken_one(loss, tmp_path):
    whole = Trainer(config(loss=loss), pictures())
    whole.run(lambda line: None)
    first = Trainer(config(loss=loss), pictures())
    for _ in range(3):
        first.advance()
    first.save(tmp_path / "state.safetensors")
    second = Trainer.resume(tmp_path / "state.safetensors", pictures())
    assert second.step == 3
    second.run(lambda line: None)
    assert second.step == 6
    for name, value in whole.averaged.items():
        assert torch.equal(value, second.averaged[name]), name


def test_the_saved_network_is_the_average(tmp_path):
    trainer = Trainer(config(), pictures())
    trainer.run(lambda line: None)
    trainer.save(tmp_path / "state.safetensors")
    network, found = load_network(tmp_path / "state.safetensors")
    assert found == trainer.config
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, trainer.averaged[name])


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_the_trip_to_json(name):
    preset = dataclasses.replace(PRESETS[name], prior=PriorConfig(source=VarianceSource.RESIDUAL))
    assert TrainConfig.from_json(preset.to_json()) == preset


def test_training_lowers_the_loss():
    quiet = NoiseRange(low=20, high=20, clean=0, varying=0, signal_dependent=0)
    changes = {"steps": 80, "loss": Loss.L2, "rate": 5e-3, "low_precision": False, "noise": quiet}
    trainer = Trainer(config(**changes), pictures())
    patches = PatchDrawer(pictures(), PatchSource(size=24)).draw(8, torch.Generator().manual_seed(9))

    def loss() -> float:
        with torch.no_grad():
            return float(trainer.batch_loss(patches, torch.Generator().manual_seed(9)))

    before = loss()
    trainer.run(lambda line: None)
    assert loss() < 0.8 * before


def test_shares_move_over_the_run():
    trainer = Trainer(config(steps=10, balance=0.5, balance_end=0.1, clean_end=1.0), pictures())
    assert trainer._moved(0.5, 0.1) == 0.5
    trainer.step = 5
    assert trainer._moved(0.5, 0.1) == pytest.approx(0.3)
    assert trainer._noise().clean == pytest.approx(0.6)
    assert trainer._moved(0.5, None) == 0.5


def test_time_ends_a_run_too():
    trainer = Trainer(config(steps=1000, minutes=1.0), pictures())
    trainer.seconds = 59.9999
    trainer.run(lambda line: None)
    assert trainer.step < 1000


def test_patches_repeat_with_their_generator_and_stay_in_range():
    drawer = PatchDrawer(pictures(), PatchSource(size=24, saturate=1.0))
    first = drawer.draw(20, torch.Generator().manual_seed(4))
    assert torch.equal(first, drawer.draw(20, torch.Generator().manual_seed(4)))
    assert first.shape == (20, 3, 24, 24)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"{" * 64])
def test_files_that_are_no_checkpoint_are_refused(content, tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(path)


def test_foreign_and_absent_checkpoints_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no Wild-JDD checkpoint"):
        checkpoint.load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("changes", [{"steps": 0}, {"rate": 0}, {"border": 12}, {"minutes": -1}])
def test_impossible_runs_are_refused(changes):
    with pytest.raises(ValueError):
        config(**changes)
