"""TASFAR's map and pseudo labels: the published ones, and what must hold for any prediction."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nonet.research.tasfar.calibration import Calibration, calibrate
from nonet.research.tasfar.density import DensityMap, Grid, density_map, grid_for, mass_of, relative_shares
from nonet.research.tasfar.housing import load_housing
from nonet.research.tasfar.pseudo_labels import TooFewConfident, pseudo_labels

HOUSING = Calibration(0.04821875973500476, 0.55786956, 5.24625051)
WALKING = Calibration(0.0020399182569235566, 19.291012011076035, 9142.279915283665)


def columns(path: Path) -> dict[str, NDArray[np.float64]]:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.parametrize(
    ("user", "cells", "uncertain"), [(1, (64, 64), 28), (2, (44, 41), 32), (3, (53, 61), 19)]
)
def test_the_published_labels_of_walks_are_met(
    user: int, cells: tuple[int, int], uncertain: int, data_root: Path
) -> None:
    known = columns(data_root / "tasfar_reference" / f"pdr_user{user}_pseudo_labels.csv.gz")
    found = pseudo_labels(
        np.stack([known["pred_x"], known["pred_y"]], 1),
        known["mc_variance"],
        WALKING,
        20,
        local="product",
        grid_of="all",
    )
    assert found.map.grid.counts == cells
    assert int((~found.confident).sum()) == uncertain
    assert np.array_equal(~found.confident, known["is_pseudo"] == 1)
    np.testing.assert_allclose(found.labels, np.stack([known["pseudo_x"], known["pseudo_y"]], 1), atol=1e-9)
    unsure = ~found.confident
    np.testing.assert_allclose(found.density[unsure], known["local_density"][unsure], atol=1e-15)
    assert found.map.mean == pytest.approx(known["global_density"][0], abs=1e-15)


def test_the_published_labels_of_housing_are_met(data_root: Path) -> None:
    known = columns(data_root / "tasfar_reference" / "california_pseudo_labels.csv.gz")
    found = pseudo_labels(known["prediction"], known["mc_variance"], HOUSING, 1.0)
    unsure = ~found.confident
    assert int(unsure.sum()) == 544
    assert found.uncertain_share == pytest.approx(0.1064, abs=1e-4)
    assert found.map.grid.origins[0] == pytest.approx(-1.959946, abs=1e-6)
    shares = [0.00159, 0.04973, 0.33827, 0.47097, 0.12816, 0.01036, 0.00085, 0.00007, 0.0]
    np.testing.assert_allclose(found.map.shares, shares, atol=5e-6)
    # What is left is the accuracy of the recomputed predictions.
    assert np.abs(found.labels - known["pseudo_label"])[unsure].max() < 6e-4
    assert np.median(np.abs(found.labels - known["pseudo_label"])[unsure]) < 2e-6
    np.testing.assert_allclose(found.density[unsure], known["local_density"][unsure], atol=1e-6)
    errors = {
        name: ((each - known["label"])[unsure] ** 2).mean()
        for name, each in (("prediction", known["prediction"]), ("pseudo", found.labels))
    }
    assert errors["prediction"] == pytest.approx(0.7479, abs=1e-3)
    assert errors["pseudo"] == pytest.approx(0.4213, abs=1e-3)


def test_the_housing_domains_are_the_published_ones(data_root: Path) -> None:
    housing = load_housing(data_root)
    assert (len(housing.source), len(housing.target)) == (15_528, 5_112)
    assert housing.source.labels.mean() == pytest.approx(2.3914, abs=1e-4)
    assert housing.target.labels.mean() == pytest.approx(1.0878, abs=1e-4)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.floats(1e-3, 20),
    st.floats(0.05, 10),
)
def test_masses_add_up_to_one_wherever_the_grid_covers_them(
    predictions: list[float], deviation: float, width: float
) -> None:
    deviations = np.full(len(predictions), deviation)
    grid = grid_for(predictions, deviations, width)
    for each in predictions:
        mass = mass_of(each, deviation, grid)
        assert mass.joint.sum() == pytest.approx(1, abs=1e-9)
        assert mass.joint.min() >= 0
    known = density_map(predictions, deviations, grid)
    assert known.shares.sum() == pytest.approx(1, abs=1e-9)


def test_a_reach_without_an_edge_lies_in_one_cell_and_one_outside_in_the_nearest() -> None:
    grid = Grid((0.0,), 10.0, (3,))
    assert (mass_of(5.0, 0.1, grid).firsts, mass_of(5.0, 0.1, grid).joint.tolist()) == ((0,), [1.0])
    assert mass_of(-40.0, 0.1, grid).firsts == (0,)
    assert mass_of(99.0, 0.1, grid).firsts == (2,)
    left = mass_of(0.0, 1.0, grid)
    assert (left.firsts, left.joint.tolist()) == ((0,), [pytest.approx(0.5)])


def labelled(predictions: NDArray[np.float64], unsure: int, width: float = 0.5, spread: float = 0.2):  # type: ignore[no-untyped-def]
    """Pseudo labels where the last ``unsure`` predictions are uncertain."""
    doubt = np.full(len(predictions), 0.5)
    doubt[-unsure:] = 2.0
    return pseudo_labels(predictions, doubt, Calibration(1.0, spread / 2, spread / 4), width, fewest=10)


def test_a_map_with_one_peak_pulls_there_and_a_flat_one_leaves_predictions_alone() -> None:
    peak = labelled(np.array([*[3.0] * 60, 3.6]), 1, width=0.2, spread=0.5)
    assert abs(peak.labels[-1] - 3.0) < 0.45
    assert peak.labels[-1] < 3.6
    flat = labelled(np.array([*np.linspace(-20, 20, 4001), 1.234]), 1, width=0.05, spread=0.5)
    assert flat.labels[-1] == pytest.approx(1.234, abs=0.05)
    assert np.array_equal(flat.labels[:-1], np.linspace(-20, 20, 4001))


@given(st.floats(-100, 100), st.floats(0.1, 10))
def test_moving_and_scaling_labels_moves_and_scales_what_comes_of_them(shift: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    predictions, doubt = rng.normal(0, 2, 80), np.where(np.arange(80) < 70, 0.5, 2.0)
    plain = pseudo_labels(predictions, doubt, Calibration(1.0, 0.2, 0.1), 0.5)
    moved = pseudo_labels(predictions + shift, doubt, Calibration(1.0, 0.2, 0.1), 0.5)
    larger = Calibration(1.0, 0.2 * scale, 0.1 * scale)
    scaled = pseudo_labels(predictions * scale, doubt, larger, 0.5 * scale)
    np.testing.assert_allclose(moved.labels - shift, plain.labels, atol=1e-6)
    np.testing.assert_allclose(scaled.labels / scale, plain.labels, atol=1e-6)


def test_one_axis_is_two_of_which_one_has_a_single_cell() -> None:
    rng = np.random.default_rng(1)
    predictions, doubt = rng.normal(0, 2, 80), np.where(np.arange(80) < 70, 0.5, 2.0)
    calibration = Calibration(1.0, 0.2, 0.1)
    one = pseudo_labels(predictions, doubt, calibration, 0.5)
    grid = Grid((*one.map.grid.origins, -1000.0), 0.5, (*one.map.grid.counts, 1))
    flat = np.stack([predictions, np.full(80, -999.75)], 1)
    sure = calibration.confident(doubt)
    deviations = calibration.deviation(doubt)
    known = density_map(flat[sure], np.minimum(deviations[sure], 0.05), grid)
    assert known.shares.shape == (*one.map.grid.counts, 1)
    mass = mass_of(flat[0], 0.05, grid)
    single = mass_of(predictions[0], 0.05, one.map.grid)
    np.testing.assert_allclose(mass.joint[:, 0], single.joint)


def test_the_error_model_is_found_again_from_its_own_errors() -> None:
    rng = np.random.default_rng(0)
    doubt = rng.exponential(0.3, 20_000)
    predictions = rng.normal(0, 5, 20_000)
    labels = predictions + rng.normal(0, 0.5 + 3 * doubt)
    found = calibrate(predictions, doubt, labels)
    assert found.intercept == pytest.approx(0.5, rel=0.1)
    assert found.slope == pytest.approx(3, rel=0.1)
    assert found.confident(doubt).mean() == pytest.approx(0.9, abs=0.01)
    assert Calibration.from_facts(found.to_facts()) == found
    with pytest.raises(ValueError, match="too few"):
        calibrate(predictions[:39], doubt[:39], labels[:39])
    for wrong in ((0.0, 1.0, 1.0), (float("nan"), 1.0, 1.0), (1.0, float("inf"), 0.0)):
        with pytest.raises(ValueError, match="three finite numbers"):
            Calibration(*wrong)


def test_a_site_of_which_too_little_is_known_is_not_guessed_at() -> None:
    calibration = Calibration(1.0, 0.1, 0.1)
    with pytest.raises(TooFewConfident, match="sure of 5"):
        pseudo_labels(np.zeros(5), np.zeros(5), calibration, 0.5)
    with pytest.raises(TooFewConfident):
        pseudo_labels(np.zeros(100), np.full(100, 9.0), calibration, 0.5)
    with pytest.raises(ValueError, match="finite"):
        pseudo_labels(np.array([np.nan] * 100), np.zeros(100), calibration, 0.5)
    with pytest.raises(ValueError, match="width"):
        grid_for([1.0], [1.0], 0.0)
    constant = pseudo_labels(np.full(60, 2.0), np.full(60, 0.5), calibration, 0.5)
    assert np.array_equal(constant.labels, np.full(60, 2.0))
    assert isinstance(constant.map, DensityMap)
    assert np.allclose(constant.credibility, 0.5)


def known_site() -> tuple[NDArray[np.float64], NDArray[np.float64], Calibration]:
    """Confident predictions about 0 and 4, and ten uncertain ones between."""
    rng = np.random.default_rng(0)
    sure = np.concatenate([rng.normal(0, 0.3, 150), rng.normal(4, 0.3, 50)])
    predictions = np.concatenate([sure, np.linspace(0.5, 3.5, 10)])
    return predictions, np.r_[np.full(200, 0.5), np.full(10, 4.0)], Calibration(1.0, 0.2, 0.2)


def test_the_kernels_labels_are_those_of_fine_cells() -> None:
    predictions, doubt, calibration = known_site()
    cells, kernel = (
        pseudo_labels(predictions, doubt, calibration, 0.02, prior=prior).labels
        for prior in ("map", "kernel")
    )
    assert np.abs(kernel - predictions)[200:].max() > 0.5
    np.testing.assert_allclose(kernel, cells, atol=0.05)
    flat = np.stack([predictions, predictions], 1)
    both = pseudo_labels(flat, doubt, calibration, 0.1, prior="kernel").labels
    assert both.shape == (210, 2)
    np.testing.assert_allclose(both[:, 0], both[:, 1])


def test_a_site_like_the_source_moves_nothing_by_the_ratio_of_maps() -> None:
    predictions, doubt, calibration = known_site()
    given = pseudo_labels(predictions, doubt, calibration, 0.1)
    same = pseudo_labels(predictions, doubt, calibration, 0.1, prior="ratio", source=given.map)
    np.testing.assert_allclose(same.labels, predictions, atol=0.1)  # mass beyond the grid is lost
    np.testing.assert_allclose(relative_shares(given.map, given.map), 1, atol=1e-6)
    with pytest.raises(ValueError, match="source's map"):
        pseudo_labels(predictions, doubt, calibration, 0.1, prior="ratio")


def test_two_maps_agree_on_the_smaller_move_or_none() -> None:
    predictions, doubt, calibration = known_site()
    shifted = pseudo_labels(predictions + 1, doubt, calibration, 0.1).map
    moves = {
        prior: pseudo_labels(predictions, doubt, calibration, 0.1, prior=prior, source=shifted).labels
        - predictions
        for prior in ("map", "ratio", "agreed")
    }
    smaller = np.minimum(np.abs(moves["map"]), np.abs(moves["ratio"]))
    apart = np.sign(moves["map"]) != np.sign(moves["ratio"])
    np.testing.assert_allclose(np.abs(moves["agreed"]), np.where(apart, 0, smaller), atol=1e-12)
    assert apart.any()
    assert (moves["agreed"] != 0).any()
