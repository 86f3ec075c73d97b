"""Training one RF-GNN: the loop, its state, and the embeddings that come out (paper, sections 4.3 to 4.5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonet.research.fis_one.adam import AdamW
from nonet.research.fis_one.graph import SignalGraph
from nonet.research.fis_one.network import Pairs, RfGnn
from nonet.research.fis_one.recipes import Recipe
from nonet.research.fis_one.sampling import Sampler, full_neighbourhood

_SMOOTHING = 0.98  # of the loss that is reported


class Trainer:
    """Trains a network on a graph; its state can be kept after any step and taken up again, to the bit.

    Args:
        graph: to embed. initial: fixed states (n, dimension). recipe: of the training. seed: of every draw.
    """

    def __init__(self, graph: SignalGraph, initial: NDArray[np.float32], recipe: Recipe, seed: int) -> None:
        self.graph, self.initial, self.recipe = graph, initial, recipe
        self.step = 0
        self.loss = float("nan")
        self._generator = np.random.default_rng([seed, 1])
        self._sampler = Sampler(graph, recipe.attention, self._generator)
        wide = recipe.dimension
        self.network = RfGnn.drawn(wide, wide, wide, np.random.default_rng([seed, 11]))
        self._optimizer = AdamW(self.network.parameters, recipe.learning_rate)

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.steps

    def run(self, observe: Callable[[Trainer], None]) -> None:
        """Train to the last step, calling ``observe`` after each; whatever it raises ends the run."""
        while not self.finished:
            self.advance()
            observe(self)

    def advance(self) -> None:
        """One step: neighbourhoods and pairs are drawn anew, all nodes embedded, the drawn pairs scored."""
        inner, outer = (self._sampler.neighbourhood(size) for size in self.recipe.fan_out)
        left, right = self._positives()
        drawn = self._sampler.negatives(len(left) * self.recipe.negatives)
        pairs = Pairs(left, right, drawn.reshape(len(left), self.recipe.negatives))
        value, slope = self.network.slope(self.initial, inner, outer, pairs, self._kept())
        self._optimizer.step(slope)
        self.step += 1
        self.loss = value if self.step == 1 else _SMOOTHING * self.loss + (1 - _SMOOTHING) * value

    def _kept(self) -> NDArray[np.float32] | None:
        """What dropout multiplies hidden states with: 0, or what keeps their mean."""
        share = self.recipe.dropout
        if not share:
            return None
        drawn = self._generator.random((self.graph.nodes, self.recipe.dimension), np.float32)
        return (drawn >= share).astype(np.float32) / np.float32(1 - share)

    def _positives(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        length = self.recipe.positives
        if not length:
            return self._sampler.edges(self.recipe.batch)
        walks = self._sampler.walks(max(self.recipe.batch // length, 1), length)
        return walks[:, :-1].ravel(), walks[:, 1:].ravel()

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything a later run needs: arrays, and JSON-able facts."""
        arrays = {f"network.{name}": value for name, value in self.network.parameters.items()}
        arrays |= {f"adam.{name}": value for name, value in self._optimizer.state().items()}
        facts = {"step": self.step, "loss": self.loss, "generator": self._generator.bit_generator.state}
        return arrays, json.loads(json.dumps(facts))

    def restore(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave. Raises KeyError or ValueError if it is of another network."""
        for name, value in self.network.parameters.items():
            value[...] = arrays[f"network.{name}"]
        self.step, self.loss = int(facts["step"]), float(facts["loss"])
        own = {name[len("adam.") :]: value for name, value in arrays.items() if name.startswith("adam.")}
        self._optimizer.restore(own, self.step)
        self._generator.bit_generator.state = facts["generator"]


def embed(
    network: RfGnn, initial: NDArray[np.floating], graph: SignalGraph, attention: str
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """States of all nodes after each layer (n, hidden) and (n, output) with full neighbourhoods."""
    everything = full_neighbourhood(graph, attention)
    inner = network.inner_states(initial, everything)
    return inner, network.outer_states(inner, everything)


def unit_rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows divided by their length; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, 1e-12)
