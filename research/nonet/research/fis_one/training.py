"""Training one RF-GNN: the loop, its state, and the embeddings that come out (paper, sections 4.3 to 4.5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonet.research.fis_one.graph import SignalGraph
from nonet.research.fis_one.network import RfGnn, link_loss
from nonet.research.fis_one.recipes import Recipe
from nonet.research.fis_one.sampling import Sampler, full_neighbourhood

_SMOOTHING = 0.98  # of the loss that is reported


class Trainer:
    """Trains a network on a graph; its state can be kept after any step and taken up again, to the bit.

    Args:
        graph: to embed. initial: fixed states (n, dimension). recipe: of the training. seed: of every draw.
    """

    def __init__(self, graph: SignalGraph, initial: Tensor, recipe: Recipe, seed: int) -> None:
        self.graph, self.initial, self.recipe = graph, initial, recipe
        self.step = 0
        self.loss = float("nan")
        self._generator = np.random.default_rng([seed, 1])
        self._sampler = Sampler(graph, recipe.attention, self._generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = RfGnn(recipe.dimension, recipe.dimension, recipe.dimension, recipe.dropout)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate)

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.steps

    def run(self, observe: Callable[[Trainer], None]) -> None:
        """Train to the last step, calling ``observe`` after each; whatever it raises ends the run."""
        self.network.train()
        while not self.finished:
            self.advance()
            observe(self)

    def advance(self) -> None:
        """One step: neighbourhoods and pairs are drawn anew, all nodes embedded, the drawn pairs scored."""
        inner, outer = (self._sampler.neighbourhood(size) for size in self.recipe.fan_out)
        left, right = self._positives()
        drawn = self._sampler.negatives(len(left) * self.recipe.negatives)
        pairs = (left, right, drawn.reshape(len(left), self.recipe.negatives))
        loss = link_loss(self.network(self.initial, inner, outer), *map(torch.from_numpy, pairs))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.step += 1
        value = float(loss.detach())
        self.loss = value if self.step == 1 else _SMOOTHING * self.loss + (1 - _SMOOTHING) * value

    def _positives(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        length = self.recipe.positives
        if not length:
            return self._sampler.edges(self.recipe.batch)
        walks = self._sampler.walks(max(self.recipe.batch // length, 1), length)
        return walks[:, :-1].ravel(), walks[:, 1:].ravel()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a later run needs: tensors, and JSON-able facts."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{name}.{key}"] = value
        facts = {"step": self.step, "loss": self.loss, "generator": self._generator.bit_generator.state}
        return tensors, json.loads(json.dumps(facts))

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave. Raises KeyError or RuntimeError if it is of another network."""
        own = self.network.state_dict()
        self.network.load_state_dict({name: tensors[f"network.{name}"] for name in own})
        for name, parameter in self.network.named_parameters():
            prefix = f"adam.{name}."
            moments = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            if moments:
                self._optimizer.state[parameter] = moments
        self.step, self.loss = int(facts["step"]), float(facts["loss"])
        self._generator.bit_generator.state = facts["generator"]


def embed(
    network: RfGnn, initial: Tensor, graph: SignalGraph, attention: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """States of all nodes after each layer (n, hidden) and (n, output) with full neighbourhoods, float32."""
    network.eval()
    with torch.no_grad():
        everything = full_neighbourhood(graph, attention)
        inner = network.inner_states(initial, everything)
        outer = network.outer_states(inner, everything)
    return inner.numpy(), outer.numpy()


def unit_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows divided by their length; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, 1e-12)
