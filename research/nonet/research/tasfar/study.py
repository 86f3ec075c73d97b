"""The study on housing: a source model for each seed, the target before, after self-training, and after
TASFAR.

Self-training is the same fine-tuning with every pseudo label the model's own prediction: what it gains is not
the density map's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonet.research.tasfar.adaptation import Recipe, adapt, fine_tune
from nonet.research.tasfar.calibration import Calibration, calibrate
from nonet.research.tasfar.housing import Housing, load_housing
from nonet.research.tasfar.regressors import Regressor, predicted, uncertainty_of

__all__ = ["SEEDS", "housing_study", "source_model"]

SEEDS = 5
_RATE, _BATCH = 1e-3, 256
_TRAINED = 0.8
Say = Callable[[str], None]


@dataclass(frozen=True)
class Convention:
    """How features are given: scaled by the source, or raw as published; with what that asks of training."""

    scaled: bool
    epochs: int
    recipe: Recipe


CONVENTIONS = {
    "scaled": Convention(True, 30, Recipe(width=0.5, rate=1e-4)),
    "raw": Convention(False, 60, Recipe(width=0.5, rate=1e-5)),
}
_SAID = ("uncertain_share", "before", "self_training", "after")


def source_model(
    inputs: Tensor, labels: NDArray[np.float64], trained: NDArray[np.intp], seed: int, epochs: int
) -> tuple[nn.Module, Calibration]:
    """Train on some rows of the source, calibrate on the others."""
    torch.manual_seed(seed)
    network = Regressor(inputs.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), _RATE)
    wanted = torch.from_numpy(labels.astype(np.float32))[:, None]
    for _ in range(epochs):
        network.train()
        for part in torch.from_numpy(trained)[torch.randperm(len(trained))].split(_BATCH):
            loss = (network(inputs[part]) - wanted[part]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    others = np.setdiff1d(np.arange(len(labels)), trained)
    held = inputs[torch.from_numpy(others)]
    return network.eval(), calibrate(predicted(network, held), uncertainty_of(network, held), labels[others])


def housing_study(root: Path, seeds: int, say: Say) -> dict[str, Any]:
    """Mean square errors for each seed, on all target rows and on those that the source model was not sure
    of."""
    housing = load_housing(root)
    facts: dict[str, Any] = {
        "task": "housing, from the coast to the inland",
        "source_rows": len(housing.source),
        "target_rows": len(housing.target),
        "inputs": {},
    }
    for name, convention in CONVENTIONS.items():
        rows: list[dict[str, Any]] = []
        for seed in range(seeds):
            rows.append(_one(housing, convention, seed))
            say(f"{name}, seed {seed}: " + ", ".join(f"{key} {rows[-1][key]}" for key in _SAID))
        figures = [each for each in rows[0] if each != "seed"]
        facts["inputs"][name] = {
            "mean": {each: round(statistics.mean(row[each] for row in rows), 4) for each in figures},
            "each": rows,
        }
    return facts


def _one(housing: Housing, convention: Convention, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    trained = np.sort(rng.permutation(len(housing.source))[: int(_TRAINED * len(housing.source))])
    source, target = housing.scaled(trained) if convention.scaled else housing.raw()
    network, calibration = source_model(source, housing.source_labels, trained, seed, convention.epochs)
    adapted = adapt(network, target, calibration, convention.recipe, seed)
    own = predicted(network, target)
    itself, _ = fine_tune(network, target, own, adapted.taught.own_credibility, convention.recipe, seed)
    unsure = ~adapted.taught.confident
    answers = {
        "before": own,
        "self_training": predicted(itself, target),
        "pseudo_label": adapted.taught.labels,
        "after": predicted(adapted.network, target),
    }
    errors = {name: (each - housing.target_labels) ** 2 for name, each in answers.items()}
    return {
        "seed": seed,
        "uncertain_share": round(float(unsure.mean()), 4),
        **{name: round(float(each.mean()), 4) for name, each in errors.items()},
        **{f"uncertain_{name}": round(float(each[unsure].mean()), 4) for name, each in errors.items()},
    }
