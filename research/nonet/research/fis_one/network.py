"""RF-GNN: the attention network on the bipartite graph (paper, sections 4.1 to 4.3), and its gradient.

h_i^k = act(W_k [h_i^(k-1) ; sum_j alpha_ij h_j^(k-1)] + b_k), L = 2 layers, ReLU after the first.

Four small arrays are all that is learnt, so the gradient is written out here: a fit runs wherever the server
runs, without a framework for training. A test holds it to automatic differentiation.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

DIMENSION = 32

Parameters = dict[str, NDArray[np.floating]]
"""``first.weight`` (hidden, 2 dimension), ``first.bias`` (hidden), ``second.weight`` (output, 2 hidden),
``second.bias`` (output)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """What the loss is over: node numbers.

    Attributes:
        left, right: (B) end points of positive pairs.
        negatives: (B, q) nodes drawn for the left ones.
    """

    left: NDArray[np.integer]
    right: NDArray[np.integer]
    negatives: NDArray[np.integer]


class RfGnn:
    """The two layers.

    Args:
        parameters: what is learnt, changed in place by training.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @classmethod
    def drawn(cls, dimension: int, hidden: int, output: int, generator: np.random.Generator) -> RfGnn:
        """A network as it is before training: weights and biases (float32) even in +-1 / sqrt(inputs)."""
        drawn: Parameters = {}
        for name, wide, high in (("first", 2 * dimension, hidden), ("second", 2 * hidden, output)):
            bound = wide**-0.5
            drawn[f"{name}.weight"] = generator.uniform(-bound, bound, (high, wide)).astype(np.float32)
            drawn[f"{name}.bias"] = generator.uniform(-bound, bound, high).astype(np.float32)
        return cls(drawn)

    def inner_states(self, initial: NDArray[np.floating], inner: sparse.csr_matrix) -> NDArray[np.floating]:
        """States (n, hidden) after the first layer, from initial states (n, dimension) and the inner hop's
        neighbourhoods (n, n), rows of which add up to 1."""
        return np.maximum(self._layer("first", initial, inner @ initial), 0)

    def outer_states(self, states: NDArray[np.floating], outer: sparse.csr_matrix) -> NDArray[np.floating]:
        """Embeddings (n, output), not normalised, from the states after the first layer."""
        return self._layer("second", states, outer @ states)

    def slope(
        self,
        initial: NDArray[np.floating],
        inner: sparse.csr_matrix,
        outer: sparse.csr_matrix,
        pairs: Pairs,
        kept: NDArray[np.floating] | None = None,
    ) -> tuple[float, Parameters]:
        """The loss, and its derivative by each parameter.

        Args:
            initial, inner, outer: as above.
            pairs: see ``link_loss``.
            kept: (n, hidden), what dropout multiplies the states after the first layer with; None for none.
        """
        gathered = inner @ initial
        hidden = np.maximum(self._layer("first", initial, gathered), 0)
        states = hidden if kept is None else hidden * kept
        spread = outer @ states
        loss, by_embedding = link_loss(self._layer("second", states, spread), pairs)
        own, others = np.split(by_embedding @ self.parameters["second.weight"], 2, axis=1)
        by_hidden = own + outer.T @ np.ascontiguousarray(others)
        if kept is not None:
            by_hidden *= kept
        by_hidden *= hidden > 0
        return loss, {
            "first.weight": np.concatenate([by_hidden.T @ initial, by_hidden.T @ gathered], axis=1),
            "first.bias": by_hidden.sum(0),
            "second.weight": np.concatenate([by_embedding.T @ states, by_embedding.T @ spread], axis=1),
            "second.bias": by_embedding.sum(0),
        }

    def _layer(
        self, name: str, own: NDArray[np.floating], gathered: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        weight, wide = self.parameters[f"{name}.weight"], own.shape[1]
        return own @ weight[:, :wide].T + gathered @ weight[:, wide:].T + self.parameters[f"{name}.bias"]


def link_loss(embeddings: NDArray[np.floating], pairs: Pairs) -> tuple[float, NDArray[np.floating]]:
    """Negative-sampling loss (section 4.3) of embeddings (n, D), averaged over positives and negatives
    together, and its derivative by them (n, D)."""
    one = embeddings[pairs.left]  # (B, D)
    drawn = pairs.negatives.shape[1]
    score = np.column_stack(  # (B, 1 + q), as the loss wants it: high where a pair looks wrong
        [
            -np.einsum("bd,bd->b", one, embeddings[pairs.right]),
            np.einsum("bd,bqd->bq", one, embeddings[pairs.negatives]),
        ]
    )
    loss = float(np.logaddexp(0, score).mean())
    by_score = 1 / ((1 + np.exp(-score)) * score.size)
    by_score[:, 0] *= -1
    # Each pair adds its factor times one end's embedding to the other's derivative: a product with a sparse
    # matrix, both ways, where adding row by row would take most of a step.
    left = np.repeat(pairs.left, 1 + drawn)
    right = np.column_stack([pairs.right, pairs.negatives]).ravel()
    factor = sparse.csr_matrix((by_score.ravel(), (left, right)), (len(embeddings),) * 2)
    return loss, factor @ embeddings + factor.T @ embeddings


def initial_states(nodes: int, dimension: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Fixed random states (nodes, dimension), uniform in (-1, 1)."""
    return generator.uniform(-1, 1, (nodes, dimension)).astype(np.float32)
