"""Uncertainty behind one contract, training on weighted pseudo labels, and when it does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nonet.cli.main import main
from nonet.research.systems import EvaluateOptions
from nonet.research.tasfar.adaptation import Recipe, fine_tune
from nonet.research.tasfar.all_tasks import STUDIED
from nonet.research.tasfar.baselines import BASELINES
from nonet.research.tasfar.commands import evaluate
from nonet.research.tasfar.networks import NetworkSpec, SourceNetwork, build
from nonet.research.tasfar.study import study
from nonet.research.tasfar.uncertainty import Answering, UncertaintySpec, estimates_of
from nonet.runtime.errors import InvalidArgument
from tests.support.synthetic_regressor import TASK, kind, trained

SPEC = NetworkSpec("mlp", (4,), widths=(16, 16), tail=(8,))


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def network_of(spec: NetworkSpec = SPEC) -> SourceNetwork:
    torch.manual_seed(0)
    found = build(spec).eval()
    assert isinstance(found, SourceNetwork)
    return found


def test_dropouts_variance_is_the_closed_form_of_a_linear_layer() -> None:
    """y = sum of w x mask / (1 - p): its variance is p / (1 - p) sum of (w x)^2."""
    network = network_of(NetworkSpec("mlp", (8,), widths=(8,), tail=()))
    inputs = torch.rand(3, 8)
    tail = network.tail[-1]
    assert isinstance(tail, nn.Linear)
    with torch.no_grad():
        expected = 0.25 * ((tail.weight * network.embedded(inputs)) ** 2).sum(1)
    passes = [Answering(network, UncertaintySpec(passes=1000, seed=seed)) for seed in range(20)]
    variances = [estimates_of(each, inputs).std[:, 0] ** 2 for each in passes]
    np.testing.assert_allclose(np.mean(variances, 0), expected.numpy(), rtol=0.05)
    assert np.array_equal(estimates_of(passes[3], inputs).std, estimates_of(passes[3], inputs).std)
    assert not np.array_equal(variances[3], variances[4])
    with pytest.raises(ValueError, match="without dropout"):
        Answering(network_of(NetworkSpec("mlp", (8,), dropout=0.0)), UncertaintySpec())


@pytest.mark.parametrize("name", ["mc_dropout", "ensemble", "learned_variance"])
def test_every_kind_of_uncertainty_is_a_value_and_a_deviation_that_grows_with_the_error(name: str) -> None:
    answering, facts = trained(*kind(name))
    inputs = torch.from_numpy(np.random.default_rng(3).normal(0, 1.5, (400, 4)).astype(np.float32))
    found = estimates_of(answering, inputs)
    assert found.value.shape == found.std.shape == (400, 1)
    assert (found.std > 0).all()
    alone = estimates_of(answering, inputs[7:8])
    np.testing.assert_allclose(alone.std[0], found.std[7], rtol=1e-4)
    unsure = ~facts.calibration.confident(found.in_space("linear")[1])
    wanted = inputs[:, 0] + 0.5 * torch.tanh(inputs[:, 1]) + 0.2 * inputs[:, 2] ** 2
    error = np.abs(found.value[:, 0] - wanted.numpy())
    if name != "learned_variance":  # the noise that it learns is the same everywhere here
        assert error[unsure].mean() > error[~unsure].mean()


def test_labels_learnt_as_logarithms_come_back_in_their_units() -> None:
    network = network_of(NetworkSpec("mlp", (4,), widths=(16,), tail=(), space="log1p"))
    inputs = torch.rand(6, 4)
    found = estimates_of(Answering(network, UncertaintySpec()), inputs)
    predicted, doubt = found.in_space("log1p")
    with torch.no_grad():
        np.testing.assert_allclose(predicted, network(inputs).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(doubt, (found.std[:, 0] / (1 + found.value[:, 0])) ** 2)


def test_weights_of_nothing_move_nothing_and_the_source_model_is_never_touched() -> None:
    network, inputs = network_of(), torch.rand(60, 4)
    labels = np.ones(60)
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
    network, inputs = network_of(), torch.rand(64, 4)
    told: list[int] = []
    recipe = Recipe(width=0.5, rate=0.0, epochs=100, batch=64)
    _, losses = fine_tune(network, inputs, 3 + np.zeros(64), np.ones(64), recipe, progress=told.append)
    assert len(losses) == 2 * recipe.window
    assert told == list(range(1, len(losses) + 1))
    stopped, losses = fine_tune(network, inputs, np.ones(64), np.ones(64), recipe, stopping=lambda: True)
    assert losses == ()
    assert same(stopped, network)


def test_sure_of_everything_adaptation_is_training_on_its_own_answers() -> None:
    network, inputs = network_of(NetworkSpec("mlp", (4,), dropout=0.01)), torch.rand(100, 4)
    with torch.no_grad():
        own = network(inputs)
    moved, _ = fine_tune(network, inputs, own.double().numpy(), np.ones(100), Recipe(width=0.5, epochs=2))
    with torch.no_grad():
        np.testing.assert_allclose(moved(inputs).numpy(), own.numpy(), atol=0.02)


def test_the_study_is_one_command_that_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NONET_DATA", str(tmp_path))
    monkeypatch.setitem(STUDIED, "synthetic", TASK)
    asked = EvaluateOptions(repository=tmp_path, seeds=1, output=tmp_path / "out.json", variant="synthetic")
    partial = tmp_path / "out.partial.json"
    evaluate(asked)
    assert not partial.exists()
    found = json.loads((tmp_path / "out.json").read_text())["tasks"]["synthetic"]
    ways = {"before", "self_training", "tasfar_published", "tasfar", "guarded", *BASELINES}
    assert set(found["mean"]["unseen"]) == ways
    assert set(found["mean"]["uncertain"]) == ways | {"pseudo_label"}
    shown = capsys.readouterr().out
    assert "a bent plane" in shown
    partial.write_text(json.dumps({"synthetic 0": {**found["each"][0], "uncertain_share": 0.5}}))
    evaluate(asked)
    assert "50.0% uncertain" in capsys.readouterr().out


def test_an_unknown_task_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tasfar", "--preset", "house"]) == 2
    assert "housing" in capsys.readouterr().err
    with pytest.raises(InvalidArgument, match="did you mean 'trips'"):
        study(Path(), 1, print, only=("trip",))
