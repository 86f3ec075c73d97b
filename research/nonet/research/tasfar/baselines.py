"""What TASFAR is compared with: three ways to adapt without the source's data, and two that have it.

After the ideas of the published methods, for regressors as small as these; none is the authors' code:

- AdaBN (Li et al., 2017): the statistics of normalisation are taken from the target. These networks
  normalise their inputs alone.
- AUGfree: answers for disturbed inputs are trained to equal the source model's for the inputs as they are.
- Datafree (feature restoration, Eastwood et al., ICLR 2022): the trunk is trained until each of its units is
  distributed as it was at the source, of which histograms were kept, here quantiles.
- MMD (Long et al., 2015) and CORAL (Sun and Saenko, 2016): training goes on with the source's labelled data,
  with a penalty on the difference of the two sides' features. They are the ceiling: the source has travelled.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from nonet.research.tasfar.networks import SourceNetwork, to_space
from nonet.research.tasfar.tasks import Domain, RegressionTask

__all__ = ["BASELINES", "adabn", "augmentation_free", "coral", "data_free", "mmd"]

Adapt = Callable[[RegressionTask, SourceNetwork, Domain, Domain, int], SourceNetwork]
"""A task, its source network, the source's data, the target's inputs and a seed -> the adapted network."""

_NOISE: Final = 0.1  # of an input's deviation
_PLACES: Final = 33
_PENALTY: Final = 0.1


def adabn(
    task: RegressionTask, network: SourceNetwork, source: Domain, target: Domain, seed: int
) -> SourceNetwork:
    """The scaling of the inputs is the target's."""
    adapted = copy.deepcopy(network)
    inputs = target.tensor()
    axes = (0, *range(2, inputs.dim()))
    spread = inputs.std(axes, keepdim=True)[0]
    adapted.centre.copy_(inputs.mean(axes, keepdim=True)[0])
    adapted.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))
    return adapted.eval()


def augmentation_free(
    task: RegressionTask, network: SourceNetwork, source: Domain, target: Domain, seed: int
) -> SourceNetwork:
    """Answers for inputs with noise, and with dropout, become those for the inputs."""
    inputs = target.tensor()
    axes = (0, *range(2, inputs.dim()))
    deviation = inputs.std(axes, keepdim=True)
    with torch.no_grad():
        wanted = torch.cat([network.eval()(part) for part in inputs.split(1024)])
    adapted, optimiser = _copy(task, network)
    for part in _batches(task, len(inputs), seed):
        disturbed = inputs[part] + _NOISE * deviation * torch.randn_like(inputs[part])
        _step(optimiser, ((adapted(disturbed) - wanted[part]) / network.label_spread).square().mean())
    return adapted.eval()


def data_free(
    task: RegressionTask, network: SourceNetwork, source: Domain, target: Domain, seed: int
) -> SourceNetwork:
    """The trunk's units get back the quantiles that they had at the source; the tail stays."""
    places = torch.linspace(0.02, 0.98, _PLACES)
    with torch.no_grad():
        kept = torch.cat([network.eval().embedded(part) for part in source.tensor().split(1024)])
        stored = torch.quantile(kept[:50_000], places, dim=0)
    spread = stored.std(0) + 1e-3 * float(stored.std()) + 1e-9
    inputs = target.tensor()
    adapted, optimiser = _copy(task, network, tail=False)
    for part in _batches(task, len(inputs), seed):
        if len(part) < _PLACES:
            continue
        found = torch.quantile(adapted.embedded(inputs[part]), places, dim=0)
        _step(optimiser, ((found - stored) / spread).square().mean())
    return adapted.eval()


def mmd(
    task: RegressionTask, network: SourceNetwork, source: Domain, target: Domain, seed: int
) -> SourceNetwork:
    """Maximum mean discrepancy of the trunk's features, with Gaussian kernels of five widths."""
    return _with_source(task, network, source, target, seed, _discrepancy)


def coral(
    task: RegressionTask, network: SourceNetwork, source: Domain, target: Domain, seed: int
) -> SourceNetwork:
    """Difference of the means and covariances of the trunk's features."""
    return _with_source(task, network, source, target, seed, _covariance_difference)


BASELINES: dict[str, Adapt] = {
    "adabn": adabn,
    "augfree": augmentation_free,
    "datafree": data_free,
    "mmd": mmd,
    "coral": coral,
}
"""By their names in the results; the last two have the source's data."""


def _with_source(
    task: RegressionTask,
    network: SourceNetwork,
    source: Domain,
    target: Domain,
    seed: int,
    difference: Callable[[Tensor, Tensor], Tensor],
) -> SourceNetwork:
    theirs, ours = source.tensor(), target.tensor()
    labels = torch.from_numpy(to_space(source.labels, network.spec.space)).float()
    adapted, optimiser = _copy(task, network)
    others = _batches(task, len(ours), seed, endless=True)
    for part in _batches(task, len(theirs), seed):
        chosen = next(others)
        features = adapted.embedded(theirs[part])
        found = adapted.labelled(adapted.drop(features))
        loss = ((found - labels[part]) / network.label_spread).square().mean()
        _step(optimiser, loss + _PENALTY * difference(features, adapted.embedded(ours[chosen])))
    return adapted.eval()


def _covariance_difference(one: Tensor, two: Tensor) -> Tensor:
    scale = one.detach().std(0).mean() + 1e-9
    means = ((one.mean(0) - two.mean(0)) / scale).square().mean()
    return means + (torch.cov(one.T) - torch.cov(two.T)).square().mean() / scale**4


def _discrepancy(one: Tensor, two: Tensor) -> Tensor:
    both = torch.cat([one, two])
    squared = torch.cdist(both, both).square()
    middle = squared.detach().mean() + 1e-9
    kernel = torch.stack([torch.exp(-squared / (middle * factor)) for factor in (0.25, 0.5, 1, 2, 4)]).mean(0)
    first = len(one)
    return kernel[:first, :first].mean() + kernel[first:, first:].mean() - 2 * kernel[:first, first:].mean()


def _copy(
    task: RegressionTask, network: SourceNetwork, *, tail: bool = True
) -> tuple[SourceNetwork, torch.optim.Optimizer]:
    adapted = copy.deepcopy(network).train()
    parameters = adapted.parameters() if tail else adapted.trunk.parameters()
    return adapted, torch.optim.Adam(parameters, task.recipe.rate)


def _batches(task: RegressionTask, count: int, seed: int, *, endless: bool = False) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in itertools.count() if endless else range(task.recipe.epochs):
        yield from torch.randperm(count, generator=generator).split(task.recipe.batch)


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
