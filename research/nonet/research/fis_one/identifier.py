"""A scan never seen: two aggregation rounds over its known transmitters, all other states frozen (paper,
section 9), then calibrated probabilities.

The arrays of an identifier, all float32 (M transmitters, D states, R directions, K floors):

    outer_states   (M, D)   states of the transmitters before the first layer
    inner_states   (M, D)   and after it
    first.weight   (D, 2D), first.bias (D), second.weight (D, 2D), second.bias (D)    the two layers
    directions     (M, R)   leading right singular vectors of the fitted scans' weights in rows of length 1
    embedding_head (K, D), direction_head (K, R), head_bias (K)     logits of the floors
    known_head     (2, 1 + len(RANKS))    logit of "of this building": see known_logit
    rule           (3)      weakest dBm, kind of weight (index into WEIGHTS), sharpness
    even           (1)      1 if neighbours are averaged evenly (attention "none")
    trust          (1)      share of the probability that is not spread evenly over all floors
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.optimize import minimize

from nonet.research.fis_one.graph import WEIGHTS, GraphRule
from nonet.research.fis_one.sampling import MOST_DECOMPOSED, drawn_evenly

Arrays = Mapping[str, NDArray[np.float32]]
Matrix = Any  # a dense array (B, M) or a scipy.sparse.csr_matrix

RANKS = (2, 4, 8, 16, 64)
"""Numbers of leading directions whose energy says whether a scan is of the building."""

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
    trust = float(arrays["trust"][0])
    distribution = trust * softmax(logits * (heard > 0)[:, None]) + (1 - trust) / logits.shape[1]
    known = known_logit(arrays, place, heard)
    return distribution, np.where(heard > 0, 1 / (1 + np.exp(-known)), 0)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows that add up to 1."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def known_logit(
    arrays: Arrays, place: NDArray[np.floating], heard: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Logit (B) of "of this building": linear in a constant, the energies and their products with
    log(1 + heard). ``known_head`` holds the weights of the former, then of the products."""
    base, size = known_features(place), np.log1p(heard)
    plain, sized = arrays["known_head"]
    return base @ plain + size * (base @ sized)


def known_features(place: NDArray[np.floating]) -> NDArray[np.float64]:
    """A constant, and the share of a scan's squared length that lies in the first directions, for several
    numbers of them (B, 1 + len(RANKS)). Transmitters that are heard together in the building lie in few."""
    return np.concatenate([np.ones((len(place), 1)), place**2 @ energy_sums(place.shape[1])], axis=1)


def energy_sums(directions: int) -> NDArray[np.float32]:
    """Ones (R, len(RANKS)) that add up the first RANKS of R directions."""
    return (np.arange(directions)[:, None] < np.array(RANKS)[None]).astype(np.float32)


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
    """Leading right singular vectors (M, count) of rows brought to length 1; fewer if M or N is smaller. Of
    more than 10,000 rows as many are drawn evenly."""
    from sklearn.decomposition import TruncatedSVD

    weights = weights[drawn_evenly(weights.shape[0], MOST_DECOMPOSED, seed)]

    wanted = min(count, weights.shape[1] - 1, weights.shape[0] - 1)
    if wanted < 1:
        return np.ones((weights.shape[1], 1), np.float32) / np.sqrt(weights.shape[1])
    svd = TruncatedSVD(wanted, random_state=seed, n_iter=4).fit(_unit(weights))
    return np.ascontiguousarray(svd.components_.T, dtype=np.float32)


def fit_known(weights: sparse.csr_matrix, directions: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """``known_head``: the building's scans, also with a third of the transmitters gone and with any share of
    their own readings missing, against made-up foreign ones, in which transmitters that are never heard
    together meet by chance. That a scan is short must not make it foreign, nor that it is long its own.

    A made-up scan holds transmitters drawn evenly, with readings drawn from all readings: what a scan of
    another place looks like that happens to hear a few transmitters of this one. Half of them hold one to
    three, the others as many as the building's own scans.
    """
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng([seed, 7])
    rows = generator.choice(weights.shape[0], min(weights.shape[0], 2000), replace=False)
    own = weights[rows].tocsr()
    gone = generator.random(weights.shape[1]) < 1 / 3
    thin = _without(own, gone[own.indices])
    kept = np.repeat(generator.uniform(0.1, 1.0, own.shape[0]), np.diff(own.indptr))
    short = _without(own, generator.random(len(kept)) > kept)
    count = len(rows)
    few = generator.integers(1, 4, count)
    alike = generator.choice(np.diff(short.indptr), count)
    size = np.minimum(np.where(np.arange(count) % 2, few, alike), weights.shape[1])
    columns = np.concatenate([generator.choice(weights.shape[1], each, replace=False) for each in size])
    offsets = np.concatenate([[0], np.cumsum(size)])
    values = generator.choice(own.data, len(columns))
    foreign = sparse.csr_matrix((values, columns, offsets), shape=(count, weights.shape[1]))
    parts = [own, thin, short, foreign]
    features = []
    for part in parts:
        base = known_features(_unit(part) @ directions)
        features.append(np.concatenate([base, np.log1p(np.diff(part.indptr))[:, None] * base], axis=1))
    truth = np.concatenate([np.ones(part.shape[0]) for part in parts[:-1]] + [np.zeros(count)])
    model = LogisticRegression(fit_intercept=False, C=10.0, class_weight="balanced", max_iter=2000)
    weight = model.fit(np.concatenate(features), truth).coef_[0]
    return weight.reshape(2, -1).astype(np.float32)


def _without(rows: sparse.csr_matrix, gone: NDArray[np.bool_]) -> sparse.csr_matrix:
    """The rows without the readings that are ``gone``, those left with nothing left out."""
    left = rows.copy()
    left.data[gone] = 0
    left.eliminate_zeros()
    return left[np.diff(left.indptr) > 0]


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
