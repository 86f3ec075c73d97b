"""Adapting a real network: uncertainty by dropout, training on weighted pseudo labels, and when it does
nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nonet.cli.main import main
from nonet.research.systems import EvaluateOptions
from nonet.research.tasfar.adaptation import Recipe, adapt, fine_tune
from nonet.research.tasfar.calibration import Calibration
from nonet.research.tasfar.commands import evaluate
from nonet.research.tasfar.regressors import Regressor, predicted, uncertainty_of
from nonet.research.tasfar.study import CONVENTIONS, source_model


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_dropouts_variance_is_the_closed_form_of_a_linear_layer() -> None:
    """y = sum of w x mask / (1 - p): its variance is p / (1 - p) sum of (w x)^2."""
    torch.manual_seed(0)
    linear = nn.Linear(8, 1)
    network = nn.Sequential(nn.Dropout(0.2), linear)
    inputs = torch.rand(3, 8)
    expected = 0.25 * ((linear.weight * inputs) ** 2).sum(1)
    found = uncertainty_of(network, inputs, passes=20_000)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0.05)
    assert np.array_equal(uncertainty_of(network, inputs, 3), uncertainty_of(network, inputs, 3))
    assert not np.array_equal(uncertainty_of(network, inputs, 3), uncertainty_of(network, inputs, 4))
    with pytest.raises(ValueError, match="without dropout"):
        uncertainty_of(linear, inputs)


def test_a_vectors_uncertainty_is_of_its_distances() -> None:
    torch.manual_seed(0)
    network = Regressor(4, outputs=2)
    inputs = torch.rand(5, 4)
    assert uncertainty_of(network, inputs).shape == (5,)
    assert predicted(network, inputs).shape == (5, 2)
    assert predicted(Regressor(4), inputs).shape == (5,)


def test_weights_of_nothing_move_nothing_and_the_source_model_is_never_touched() -> None:
    torch.manual_seed(0)
    network, inputs = Regressor(4).eval(), torch.rand(60, 4)
    labels = predicted(network, inputs) + 1
    recipe = Recipe(width=0.5, rate=1e-2, epochs=3, batch=16)
    unmoved, losses = fine_tune(network, inputs, labels, np.zeros(60), recipe)
    assert same(unmoved, network)
    assert max(losses) < 1e-5
    before = [value.clone() for value in network.parameters()]
    moved, _ = fine_tune(network, inputs, labels, np.ones(60), recipe)
    assert not same(moved, network)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    again, _ = fine_tune(network, inputs, labels, np.ones(60), recipe)
    assert same(moved, again)


def test_training_stops_when_the_loss_no_longer_falls() -> None:
    torch.manual_seed(0)
    network, inputs = Regressor(4, dropout=0.0).eval(), torch.rand(64, 4)
    labels = predicted(network, inputs)
    recipe = Recipe(width=0.5, rate=0.0, epochs=100, batch=64)
    _, losses = fine_tune(network, inputs, labels + 1, np.ones(64), recipe)
    assert len(losses) == 2 * recipe.window
    stopped, losses = fine_tune(network, inputs, labels + 1, np.ones(64), recipe, stopping=lambda: True)
    assert losses == ()
    assert same(stopped, network)


def test_a_source_model_is_calibrated_on_rows_it_was_not_trained_on() -> None:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(500, 3)).astype(np.float32))
    labels = inputs.numpy().sum(1) + rng.normal(0, 0.1, 500)
    network, calibration = source_model(inputs, labels, np.arange(400), seed=0, epochs=20)
    held = predicted(network, inputs[400:])
    assert ((held - labels[400:]) ** 2).mean() < 0.3
    assert calibration.threshold > 0
    adapted = adapt(network, inputs[:200] + 0.5, calibration, Recipe(width=0.5, epochs=2))
    assert len(adapted.losses) == 2
    assert adapted.taught.labels.shape == (200,)


def test_sure_of_everything_adaptation_is_training_on_its_own_answers() -> None:
    torch.manual_seed(0)
    network, inputs = Regressor(4, dropout=0.01).eval(), torch.rand(100, 4)
    adapted = adapt(network, inputs, Calibration(1e9, 0.1, 0.0), Recipe(width=0.5, epochs=2))
    assert adapted.taught.confident.all()
    np.testing.assert_allclose(predicted(adapted.network, inputs), predicted(network, inputs), atol=0.02)


def test_the_study_is_one_command(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training of two epochs in place of thirty: every figure is there, none is judged."""
    monkeypatch.setenv("NONET_DATA", str(data_root))
    for name, convention in CONVENTIONS.items():
        short = dataclasses.replace(
            convention, epochs=2, recipe=dataclasses.replace(convention.recipe, epochs=1)
        )
        monkeypatch.setitem(CONVENTIONS, name, short)
    evaluate(EvaluateOptions(repository=tmp_path, seeds=1, output=tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["source_rows"], found["target_rows"]) == (15_528, 5_112)
    for inputs in ("scaled", "raw"):
        row = found["inputs"][inputs]["each"][0]
        assert 0 <= row["uncertain_share"] <= 1
        assert row["after"] > 0
    assert "raw inputs" in capsys.readouterr().out
    assert main(["train", "tasfar"]) == 2
    assert "nothing to train" in capsys.readouterr().err
