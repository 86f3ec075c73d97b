"""A scan never seen: two aggregation rounds over its known transmitters, all other states frozen (paper,
section 9), then calibrated probabilities.

The arrays of an identifier, all float32 (M transmitters, D states, R directions, K floors):

    outer_states   (M, D)   states of the transmitters before the first layer
    inner_states   (M, D)   and after it
    first.weight   (D, 2D), first.bias (D), second.weight (D, 2D), second.bias (D)    the two layers
    directions     (M, R)   leading right singular vectors of the fitted scans' weights in rows of length 1
    embedding_head (K, D), direction_head (K, R), head_bias (K)     logits of the floors
    known_head     (4)      logit of "of this building": constant, energy, log(1 + heard), their product
    rule           (3)      weakest dBm, kind of weight (index into WEIGHTS), sharpness
    even           (1)      1 if neighbours are averaged evenly (attention "none")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.optimize import minimize

from nonet.research.fis_one.graph import WEIGHTS, GraphRule

Arrays = Mapping[str, NDArray[np.float32]]
Matrix = Any  # a dense array (B, M) or a scipy.sparse.csr_matrix

_SMOOTHING = 1e-3  # share of a pseudo-label that is spread over all floors


def weight_rows(rssi: NDArray[np.floating], rule: GraphRule) -> NDArray[np.float32]:
    """Edge weights (B, M) of dense rows in dBm, 0 for what was not heard (0 dBm) or is too weak."""
    heard = (rssi < 0) & (rssi >= rule.weakest)
    return np.where(heard, rule.weigh(np.where(heard, rssi, rule.weakest)), 0).astype(np.float32)


def scan_embeddings(
    arrays: Arrays, weights: Matrix, initial: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Embeddings of length 1 (B, D) of scans given as rows of edge weights (B, M).

    ``initial`` (B, D) are the scans' own initial states; zeros for scans that were not fitted.
    """
    share = _shares(weights, even=bool(arrays["even"][0]))
    outer = share @ arrays["outer_states"]
    own = np.zeros_like(outer) if initial is None else initial
    hidden = np.concatenate([own, outer], axis=1) @ arrays["first.weight"].T + arrays["first.bias"]
    hidden = np.maximum(hidden, 0)
    inner = share @ arrays["inner_states"]
    final = np.concatenate([hidden, inner], axis=1) @ arrays["second.weight"].T + arrays["second.bias"]
    final = final.astype(np.float64)
    return final / np.maximum(np.linalg.norm(final, axis=1, keepdims=True), 1e-12)


def scan_directions(arrays: Arrays, weights: Matrix) -> NDArray[np.float64]:
    """Coordinates (B, R) of rows of edge weights, at length 1, in the building's leading directions; their
    squares add up to the energy, 0 to 1."""
    return _unit(weights) @ arrays["directions"]


def identify(arrays: Arrays, rssi: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Floor probabilities (B, K) and the probability of being in this building (B) of rows (B, M) in dBm, 0 =
    not heard. A scan in which nothing is heard has even probabilities, and 0."""
    weakest, kind, sharpness = (float(value) for value in arrays["rule"])
    weights = weight_rows(rssi, GraphRule(weakest, WEIGHTS[int(kind)], sharpness))
    embedding, place = scan_embeddings(arrays, weights), scan_directions(arrays, weights)
    heard = (weights > 0).sum(1)
    logits = embedding @ arrays["embedding_head"].T + place @ arrays["direction_head"].T + arrays["head_bias"]
    distribution = softmax(logits * (heard > 0)[:, None])
    known = known_features(place, heard) @ arrays["known_head"]
    return distribution, np.where(heard > 0, 1 / (1 + np.exp(-known)), 0)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows that add up to 1."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def known_features(place: NDArray[np.floating], heard: NDArray[np.integer]) -> NDArray[np.float64]:
    """What "of this building" is judged by (B, 4): constant, energy, log(1 + heard), their product."""
    energy, size = (place**2).sum(1), np.log1p(heard)
    return np.stack([np.ones(len(energy)), energy, size, energy * size], axis=1)


def fit_logits(
    features: NDArray[np.floating], target: NDArray[np.floating], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression on soft targets: weights (K, F) and bias (K).

    Args:
        features: (N, F). target: (N, K), rows add up to 1. penalty: of the squared weights, per scan.
    """
    count, wide = features.shape
    floors = target.shape[1]

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, bias = flat[: floors * wide].reshape(floors, wide), flat[floors * wide :]
        logits = features @ weight.T + bias
        shifted = logits - logits.max(1, keepdims=True)
        spread = np.exp(shifted)
        total = spread.sum(1, keepdims=True)
        loss = -(target * (shifted - np.log(total))).sum() / count + penalty * (weight**2).sum()
        slope = (spread / total - target) / count
        gradient = np.concatenate([(slope.T @ features + 2 * penalty * weight).ravel(), slope.sum(0)])
        return loss, gradient

    start = np.zeros(floors * wide + floors)
    flat = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return flat[: floors * wide].reshape(floors, wide), flat[floors * wide :]


def temperature(logits: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """The factor on held-out logits (N, K) that makes the targets (N, K) most likely, 1/20 to 20."""
    powers = np.linspace(np.log(0.05), np.log(20), 61)
    loss = [-(target * np.log(softmax(logits * np.exp(power)) + 1e-12)).sum() for power in powers]
    return float(np.exp(powers[int(np.argmin(loss))]))


def soften(target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Targets (N, K) with a little spread over all floors: no probability is learnt to be exactly 0."""
    return (1 - _SMOOTHING) * target + _SMOOTHING / target.shape[1]


def leading_directions(weights: sparse.csr_matrix, count: int, seed: int) -> NDArray[np.float32]:
    """Leading right singular vectors (M, count) of rows brought to length 1; fewer if M or N is smaller."""
    from sklearn.decomposition import TruncatedSVD

    wanted = min(count, weights.shape[1] - 1, weights.shape[0] - 1)
    if wanted < 1:
        return np.ones((weights.shape[1], 1), np.float32) / np.sqrt(weights.shape[1])
    svd = TruncatedSVD(wanted, random_state=seed, n_iter=4).fit(_unit(weights))
    return np.ascontiguousarray(svd.components_.T, dtype=np.float32)


def fit_known(weights: sparse.csr_matrix, directions: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The logit of "of this building" (4): the building's scans, also with a third of their transmitters
    gone, against made-up foreign ones, in which transmitters that are never heard together meet by chance.

    A made-up scan holds one to eight transmitters, drawn evenly, with readings drawn from all readings: what
    a scan of another place looks like that happens to hear a few transmitters of this one.
    """
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng([seed, 7])
    rows = generator.choice(weights.shape[0], min(weights.shape[0], 2000), replace=False)
    own = weights[rows].tocsr()
    thin = own.copy()
    gone = generator.random(weights.shape[1]) < 1 / 3
    thin.data[gone[thin.indices]] = 0
    thin.eliminate_zeros()
    thin = thin[np.diff(thin.indptr) > 0]
    count = len(rows)
    size = np.minimum(generator.integers(1, 9, count), weights.shape[1])
    columns = generator.integers(0, weights.shape[1], int(size.sum()))
    values = generator.choice(own.data, len(columns))
    offsets = np.concatenate([[0], np.cumsum(size)])
    foreign = sparse.csr_matrix((values, columns, offsets), shape=(count, weights.shape[1]))
    foreign.sum_duplicates()
    parts = [own, thin, foreign]
    features = [known_features(_unit(part) @ directions, np.diff(part.indptr)) for part in parts]
    truth = np.concatenate([np.ones(own.shape[0] + thin.shape[0]), np.zeros(count)])
    model = LogisticRegression(fit_intercept=False, C=10.0, class_weight="balanced", max_iter=1000)
    return model.fit(np.concatenate(features), truth).coef_[0].astype(np.float32)


def _shares(weights: Matrix, *, even: bool) -> Matrix:
    """Rows of weights (or of ones, if ``even``) divided by their sum; a row of zeros stays."""
    values = (weights > 0) * np.float32(1) if even else weights
    total = np.asarray(values.sum(axis=1), np.float64).reshape(-1, 1)
    return _scaled(values, 1 / np.maximum(total, 1e-12))


def _unit(weights: Matrix) -> Matrix:
    """Rows divided by their length; a row of zeros stays."""
    squares = weights.multiply(weights) if sparse.issparse(weights) else weights * weights
    length = np.sqrt(np.asarray(squares.sum(axis=1), np.float64)).reshape(-1, 1)
    return _scaled(weights, 1 / np.maximum(length, 1e-12))


def _scaled(weights: Matrix, factor: NDArray[np.floating]) -> Matrix:
    return weights.multiply(factor).tocsr() if sparse.issparse(weights) else weights * factor
