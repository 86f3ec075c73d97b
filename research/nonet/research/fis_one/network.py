"""RF-GNN: the attention network on the bipartite graph (paper, sections 4.1 to 4.3).

h_i^k = act(W_k [h_i^(k-1) ; sum_j alpha_ij h_j^(k-1)] + b_k), L = 2 layers, ReLU after the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

DIMENSION = 32


class _SparseProduct(torch.autograd.Function):
    """matrix @ dense with the matrix constant; the backward pass is one product with its transpose."""

    @staticmethod
    def forward(ctx: Any, matrix: sparse.csr_matrix, dense: Tensor) -> Tensor:
        ctx.transposed = matrix.T
        return torch.from_numpy(matrix @ dense.detach().numpy())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, torch.from_numpy(ctx.transposed @ gradient.contiguous().numpy())


def aggregate(matrix: sparse.csr_matrix, states: Tensor) -> Tensor:
    """Rows of ``matrix`` (m, n) as weighted sums of ``states`` (n, D); differentiable in the states."""
    return _SparseProduct.apply(matrix, states)


class RfGnn(nn.Module):
    """The two layers.

    Args:
        dimension: of the initial states. hidden, output: of the layers.
        dropout: share of hidden values set to 0 in training.
    """

    def __init__(
        self,
        dimension: int = DIMENSION,
        hidden: int = DIMENSION,
        output: int = DIMENSION,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(2 * dimension, hidden)
        self.second = nn.Linear(2 * hidden, output)
        self.dropout = dropout

    def forward(self, initial: Tensor, inner: sparse.csr_matrix, outer: sparse.csr_matrix) -> Tensor:
        """Embeddings (n, output) from initial states (n, dimension) and both hops' neighbourhoods."""
        return self.outer_states(self.inner_states(initial, inner), outer)

    def inner_states(self, initial: Tensor, inner: sparse.csr_matrix) -> Tensor:
        """States after the first layer (n, hidden)."""
        states = functional.relu(self.first(torch.cat([initial, aggregate(inner, initial)], dim=1)))
        return functional.dropout(states, self.dropout, self.training) if self.dropout else states

    def outer_states(self, states: Tensor, outer: sparse.csr_matrix) -> Tensor:
        """States after the second layer (n, output), not normalised."""
        return self.second(torch.cat([states, aggregate(outer, states)], dim=1))


def link_loss(embeddings: Tensor, left: Tensor, right: Tensor, negatives: Tensor) -> Tensor:
    """Negative-sampling loss (section 4.3), averaged over positives and negatives together.

    Args:
        embeddings: (n, D). left, right: (B) end points of positive pairs. negatives: (B, q) nodes drawn for
            the left ones.
    """
    one = embeddings.index_select(0, left)  # (B, D)
    other = embeddings.index_select(0, right)
    drawn = embeddings.index_select(0, negatives.reshape(-1)).view(*negatives.shape, -1)  # (B, q, D)
    positive = functional.softplus(-(one * other).sum(1))
    negative = functional.softplus((drawn @ one.unsqueeze(2)).squeeze(2))
    return (positive.sum() + negative.sum()) / (len(left) * (1 + negatives.shape[1]))


def initial_states(nodes: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """Fixed random states (nodes, dimension), uniform in (-1, 1)."""
    return torch.from_numpy(generator.uniform(-1, 1, (nodes, dimension)).astype(np.float32))
