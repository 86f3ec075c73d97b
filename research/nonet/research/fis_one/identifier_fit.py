"""Learning an identifier from a fitted building: head, calibration and what counts as this building."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from nonet.research.fis_one.clustering import centroids
from nonet.research.fis_one.graph import WEIGHTS, SignalGraph
from nonet.research.fis_one.identifier import (
    fit_known,
    fit_logits,
    leading_directions,
    scan_directions,
    scan_embeddings,
    soften,
    temperature,
)
from nonet.research.fis_one.network import RfGnn
from nonet.research.fis_one.recipes import Recipe

_DIRECTIONS = 64
_PENALTY = 1e-4
_DIRECTION_SCALE = 4.0  # the directions' coordinates are small beside an embedding's
_MOST_LEARNT = 10_000
_FOLDS = 4


def scan_weights(graph: SignalGraph) -> sparse.csr_matrix:
    """The graph's scans as rows of edge weights (N, M) float32."""
    edges = graph.edges
    return sparse.csr_matrix(
        (
            graph.weight[:edges].astype(np.float32),
            graph.neighbour[:edges] - graph.scans,
            graph.offsets[: graph.scans + 1],
        ),
        shape=(graph.scans, graph.transmitters),
    )


def fit_identifier(
    graph: SignalGraph,
    network: RfGnn,
    initial: NDArray[np.float32],
    hidden: NDArray[np.floating],
    floor: NDArray[np.integer],
    floors: int,
    recipe: Recipe,
    seed: int,
    trust: float,
) -> dict[str, NDArray[np.float32]]:
    """The arrays of ``identifier`` for a building whose scans (N) were found to lie on ``floor``.

    With the recipe's clustering "ward" the head is the paper's nearest centroid with calibrated distances,
    else a logistic regression on embedding and leading directions. Either way its temperature is set on scans
    it was not fitted on, embedded as new ones are. ``trust``, 0 to 1, is what the floors found deserve: the
    rest of the probability is spread over all floors.
    """
    weights = scan_weights(graph)
    arrays = {
        "outer_states": initial[graph.scans :],
        "inner_states": hidden[graph.scans :],
        **network.parameters,
        "directions": leading_directions(weights, _DIRECTIONS, seed),
        "rule": np.array([recipe.rule.weakest, WEIGHTS.index(recipe.rule.weight), recipe.rule.sharpness]),
        "even": np.array([recipe.attention == "none"]),
        "trust": np.array([trust]),
    }
    generator = np.random.default_rng([seed, 5])
    count = graph.scans
    rows = generator.permutation(count)[:_MOST_LEARNT]
    chosen = weights[rows]
    features = np.concatenate(
        [scan_embeddings(arrays, chosen), _DIRECTION_SCALE * scan_directions(arrays, chosen)], axis=1
    )
    target = soften(np.eye(floors)[floor[rows]])
    wide = arrays["second.bias"].shape[0]
    fit = _centroid_head if recipe.clustering == "ward" else _logistic_head
    held_out = np.empty_like(target)
    for fold in range(_FOLDS):
        inside = np.arange(len(rows)) % _FOLDS != fold
        if not inside.any():
            inside[:] = True
        weight, bias = fit(features[inside], target[inside], wide)
        held_out[np.arange(len(rows)) % _FOLDS == fold] = (features @ weight.T + bias)[
            np.arange(len(rows)) % _FOLDS == fold
        ]
    sharpness = temperature(held_out, target)
    weight, bias = fit(features, target, wide)
    arrays |= {
        "embedding_head": sharpness * weight[:, :wide],
        "direction_head": sharpness * _DIRECTION_SCALE * weight[:, wide:],
        "head_bias": sharpness * bias,
        "known_head": fit_known(weights, arrays["directions"], seed),
    }
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}


def _centroid_head(
    features: NDArray[np.floating], target: NDArray[np.floating], wide: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minus the squared distance to each floor's centroid, up to what all floors share."""
    floors = target.shape[1]
    centres = centroids(features[:, :wide], target.argmax(1), floors)
    weight = np.zeros((floors, features.shape[1]))
    weight[:, :wide] = 2 * centres
    return weight, -(centres**2).sum(1)


def _logistic_head(
    features: NDArray[np.floating], target: NDArray[np.floating], wide: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return fit_logits(features, target, _PENALTY)
