"""The variants of the recipe change what they say they change, on made-up houses."""

from __future__ import annotations

import numpy as np
import pytest

from nonet.research.tasfar.ablations import VARIANTS, one_seed
from nonet.research.tasfar.tasks import Domain, Domains


def houses(count: int, shift: float, seed: int) -> Domain:
    """Prices that follow the first of eight features, noisier where the second is large."""
    random = np.random.default_rng(seed)
    inputs = random.normal(0, 1, (count, 8)).astype(np.float32)
    inputs[:, 1] = np.abs(inputs[:, 1]) + shift
    noise = random.normal(0, 1, count) * (0.05 + 0.4 * inputs[:, 1])
    labels = (2 + 0.5 * inputs[:, 0] - shift + noise)[:, None]
    return Domain(inputs, labels.astype(np.float64), np.arange(count))


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    names = (
        "published",
        "uniform map (labels are the predictions)",
        "wrong map (labels of the source)",
        "no credibility",
        "eta 0.7",
        "ensemble of five",
        "learned variance",
    )
    domains = Domains(houses(450, 0.0, 0), houses(300, 0.5, 1))
    return one_seed(domains, 0, {name: VARIANTS[name] for name in names})


def test_a_uniform_map_leaves_the_predictions_and_a_wrong_one_moves_them_elsewhere(
    figures: dict[str, dict[str, float]],
) -> None:
    whole, uniform, wrong = (
        figures[name]
        for name in (
            "published",
            "uniform map (labels are the predictions)",
            "wrong map (labels of the source)",
        )
    )
    assert uniform["uncertain_pseudo_label"] == pytest.approx(uniform["uncertain_before"], abs=1e-12)
    moved = {each["uncertain_pseudo_label"] for each in (whole, uniform, wrong)}
    assert len(moved) == 3
    assert whole["before"] == uniform["before"] == wrong["before"]


def test_without_credibility_only_training_differs(figures: dict[str, dict[str, float]]) -> None:
    whole, without = figures["published"], figures["no credibility"]
    assert whole["uncertain_pseudo_label"] == without["uncertain_pseudo_label"]
    assert whole["after"] != without["after"]


def test_a_smaller_eta_is_unsure_of_more(figures: dict[str, dict[str, float]]) -> None:
    assert figures["eta 0.7"]["uncertain_share"] > figures["published"]["uncertain_share"]


def test_other_uncertainties_have_networks_of_their_own(figures: dict[str, dict[str, float]]) -> None:
    before = {figures[name]["before"] for name in ("published", "ensemble of five", "learned variance")}
    assert len(before) == 3
    assert all(np.isfinite(list(each.values())).all() for each in figures.values())
