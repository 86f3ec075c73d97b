"""Training a source model and taking its numbers, on source data alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nonet.research.tasfar.networks import (
    DensityTrunk,
    Ensemble,
    NetworkSpec,
    SourceNetwork,
    to_space,
)
from nonet.research.tasfar.tasks import Domain, RegressionTask, Split
from nonet.research.tasfar.uncertainty import Answering, UncertaintySpec, estimates_of
from nonet.research.tasfar.version_files import SourceFacts, source_facts

__all__ = ["train_network", "train_source"]


def train_source(
    task: RegressionTask,
    split: Split,
    seed: int,
    *,
    spec: NetworkSpec | None = None,
    uncertainty: UncertaintySpec | None = None,
    minutes: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Answering, SourceFacts]:
    """Train on the first part of a split of the source, calibrate on the second.

    Args:
        spec: of the network, the task's own by default.
        uncertainty: twenty passes with dropout by default.
        minutes: of training at most; the rate then follows them to 0. By default the task's epochs.
    """
    chosen = spec or task.spec
    members = [
        train_network(task, chosen, split.train, seed + 1000 * index, minutes, say)
        for index in range(chosen.members)
    ]
    network = members[0] if len(members) == 1 else Ensemble(members)
    answering = Answering(network, uncertainty or UncertaintySpec()).eval()
    held = split.calibrate
    return answering, source_facts(
        estimates_of(answering, held.tensor()), held.labels, task.recipe, chosen.space
    )


def train_network(
    task: RegressionTask,
    spec: NetworkSpec,
    data: Domain,
    seed: int,
    minutes: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> SourceNetwork:
    """One network, by the squared error of scaled labels in the network's space; with a learned variance by
    the likelihood of a normal distribution."""
    torch.manual_seed(seed)
    recipe = task.training
    network = SourceNetwork(spec)
    inputs = data.tensor()
    labels = torch.from_numpy(to_space(data.labels, spec.space).astype(np.float32))
    maps = torch.from_numpy(data.extra)
    if recipe.scaled != "nothing":
        network.scale_by(inputs, labels if recipe.scaled == "inputs and labels" else None)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=recipe.decay)
    started, epoch, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * 0.5 * (1 + math.cos(math.pi * done))
        network.train()
        total = 0.0
        for part in torch.randperm(len(inputs)).split(recipe.batch):
            loss = _loss(
                network, inputs[part], labels[part], maps[part] if len(maps) else maps, recipe.density_weight
            )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            total += float(loss.detach()) * len(part)
        epoch += 1
        done = epoch / recipe.epochs
        if minutes is not None:
            done = (time.monotonic() - started) / (60 * minutes)
        if epoch % 10 == 0 or done >= 1:
            say(f"epoch {epoch}: loss {total / len(inputs):.4f}")
    return network.eval()


def _loss(network: SourceNetwork, inputs: Tensor, labels: Tensor, maps: Tensor, weight: float) -> Tensor:
    outputs = labels.shape[1]
    found = network(inputs)
    away = (found[:, :outputs] - labels) / network.label_spread
    if network.spec.learned_variance:
        logarithm = found[:, outputs:] - 2 * network.label_spread.log()
        return (away.square() / logarithm.exp() + logarithm).mean() * 0.5
    loss = away.square().mean()
    if weight and isinstance(network.trunk, DensityTrunk):
        loss = loss + weight * F.mse_loss(density_of(network, inputs), maps)
    return loss


def density_of(network: SourceNetwork, pictures: Tensor) -> Tensor:
    """The density [N, H/4, W/4] whose sum over a picture is the count."""
    trunk, tail = network.trunk, network.tail[-1]
    assert isinstance(trunk, DensityTrunk)
    assert isinstance(tail, torch.nn.Linear)
    scaled = (pictures - network.centre) / network.spread
    features = trunk.features(scaled)
    return F.conv2d(features, tail.weight[:, :, None, None])[:, 0]
