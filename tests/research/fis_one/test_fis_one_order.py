"""Clusters, similarity, order and scores, against the figures of the specification and brute force."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from nonet.research.fis_one.clustering import nearest_centroid, ward
from nonet.research.fis_one.data import load_building
from nonet.research.fis_one.floor_names import level_of, name_floors, order_floors
from nonet.research.fis_one.graph import GraphRule, build_graph
from nonet.research.fis_one.indexing import (
    MOST_EXACT,
    held_karp,
    order_clusters,
    path_cost,
    path_costs,
    two_opt,
)
from nonet.research.fis_one.metrics import (
    adjusted_rand,
    jaro_winkler,
    mutual_information,
    order_similarity,
    score_floors,
)
from nonet.research.fis_one.spillover import adapted_jaccard, heard_counts, plain_jaccard, similarity_of
from nonet.runtime.errors import InvalidArgument

PUBLISHED = {
    "dim_4": (0.4834, 0.7056),
    "dim_8": (0.7038, 0.8063),
    "dim_16": (0.7447, 0.8643),
    "dim_32": (1.0, 1.0),
    "dim_64": (1.0, 1.0),
    "dim_unweighted_32": (0.3846, 0.5236),
}
SIZES = {
    "5cd56bb5": (4421, 62, 71_014),
    "5cd969be": (1794, 404, 157_294),
    "site1": (7459, 3911, 1_813_883),
    "site2": (5019, 4265, 1_315_105),
    "uji0": (5248, 162, 75_767),
}


def symmetric(count: int, generator: np.random.Generator) -> np.ndarray:
    values = generator.random((count, count))
    return values + values.T


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_embeddings_cluster_as_published(data_root: Path, name: str) -> None:
    """Check 1: Ward on the authors' own embeddings; attention matters, 32 dimensions suffice."""
    truth = load_building("5cd56bb5", data_root).floor
    points = np.load(data_root / "ms_building_5cd56bb5" / "published_embeddings.npz")[name]
    found = ward(points, 5, np.random.default_rng(0))
    scores = adjusted_rand(truth, found), mutual_information(truth, found)
    assert scores == pytest.approx(PUBLISHED[name], abs=0.002)


@pytest.mark.parametrize("name", SIZES)
def test_graphs_have_the_sizes_that_the_readings_give(data_root: Path, name: str) -> None:
    """Check 2."""
    graph = build_graph(load_building(name, data_root).scans, GraphRule())
    assert (graph.scans, graph.transmitters, graph.edges) == SIZES[name]


def test_adapted_jaccard_by_hand() -> None:
    """Check 3."""
    assert adapted_jaccard(np.array([[2, 1, 0], [1, 0, 3]]))[0, 1] == pytest.approx(0.235294, abs=1e-6)


def test_similarities_of_the_true_floors(data_root: Path) -> None:
    """Check 4."""
    building = load_building("5cd56bb5", data_root)
    counts = heard_counts(build_graph(building.scans, GraphRule()), building.floor, 5)
    upper = np.triu_indices(5, 1)
    adapted = [0.3786, 0.1672, 0.1477, 0.1161, 0.3293, 0.1524, 0.1165, 0.5817, 0.1758, 0.3480]
    plain = [0.3514, 0.1250, 0.0789, 0.0682, 0.3000, 0.0938, 0.0789, 0.4286, 0.1250, 0.2308]
    np.testing.assert_allclose(adapted_jaccard(counts)[upper], adapted, atol=5e-5)
    np.testing.assert_allclose(plain_jaccard(counts)[upper], plain, atol=5e-5)
    order = order_clusters(path_costs(adapted_jaccard(counts)), 0, 1)
    assert order.cost == pytest.approx(10.2704, abs=5e-5)


@pytest.mark.parametrize("name", ["5cd56bb5", "5cd969be", "site1", "site2"])
def test_true_floors_come_out_in_exact_order(data_root: Path, name: str) -> None:
    """Check 5, and the same from a label on the top floor."""
    building = load_building(name, data_root)
    floors = len(building.floors)
    counts = heard_counts(build_graph(building.scans, GraphRule()), building.floor, floors)
    similarity = adapted_jaccard(counts)
    exact = tuple(range(floors))
    assert order_clusters(path_costs(similarity), 0, 1).clusters == exact
    assert order_clusters(path_costs(similarity), floors - 1, floors).clusters == exact
    if name == "site2":
        expected = [0.369, 0.935, 0.845, 0.857, 0.836, 0.898, 0.892, 0.630]
        np.testing.assert_allclose(np.diag(similarity, 1), expected, atol=6e-4)


def test_exact_order_equals_brute_force_and_two_opt_is_never_better() -> None:
    """Check 6, on 200 random matrices."""
    generator = np.random.default_rng(6)
    for _ in range(200):
        count = int(generator.integers(3, 9))
        cost = symmetric(count, generator)
        start = int(generator.integers(count))
        others = [each for each in range(count) if each != start]
        best = min(path_cost(cost, (start, *rest)) for rest in itertools.permutations(others))
        exact, rough = held_karp(cost, start), two_opt(cost, start, generator)
        assert exact[0] == rough[0] == start
        assert sorted(exact) == sorted(rough) == list(range(count))
        assert path_cost(cost, exact) == pytest.approx(best)
        assert path_cost(cost, rough) >= best - 1e-9


@pytest.mark.parametrize("position", range(1, 8))
def test_a_label_on_any_floor_is_where_it_says(position: int) -> None:
    """Against brute force where the best path does not already put the cluster there."""
    generator = np.random.default_rng(position)
    for _ in range(5):
        cost = symmetric(7, generator)
        order = order_clusters(cost, 3, position)
        assert order.clusters[position - 1] == 3
        assert path_cost(cost, order.clusters) == pytest.approx(order.cost)
        every = [path for path in itertools.permutations(range(7)) if path[position - 1] == 3]
        assert order.cost == pytest.approx(min(path_cost(cost, path) for path in every))


def test_the_middle_floor_leaves_the_direction_open() -> None:
    line = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    order = order_clusters(line, 2, 3)
    assert order.other == order.clusters[::-1]
    assert order_clusters(line, 1, 2).other is None
    assert order_clusters(line, 1, 2).clusters == (0, 1, 2, 3, 4)
    assert order_clusters(line, 1, 4).clusters == (4, 3, 2, 1, 0)


def test_the_exact_solver_states_its_limit() -> None:
    big = symmetric(MOST_EXACT + 1, np.random.default_rng(0))
    with pytest.raises(InvalidArgument, match=str(MOST_EXACT)):
        held_karp(big, 0)
    assert sorted(order_clusters(big, 4, 1).clusters) == list(range(MOST_EXACT + 1))
    with pytest.raises(InvalidArgument, match="does not exist"):
        order_clusters(big, 4, 40)


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ("01234", "01324", 0.9467),
        ("01234", "04321", 0.6600),
        ("01234", "43210", 0.4667),
        ("012345", "051234", 0.9000),
        ("012345", "021345", 0.9500),
        ("MARTHA", "MARHTA", 0.9611),
        ("0123", "0123", 1.0),
        ("", "", 1.0),
        ("a", "b", 0.0),
    ],
)
def test_jaro_winkler(one: str, other: str, value: float) -> None:
    """Check 7."""
    assert jaro_winkler(one, other) == pytest.approx(value, abs=5e-5)


LABELS = arrays(np.int64, st.shared(st.integers(2, 60), key="n"), elements=st.integers(0, 4))


@given(LABELS, LABELS)
def test_scores_equal_those_of_scikit_learn(one: np.ndarray, other: np.ndarray) -> None:
    assert adjusted_rand(one, other) == pytest.approx(adjusted_rand_score(one, other))
    assert mutual_information(one, other) == pytest.approx(normalized_mutual_info_score(one, other), abs=1e-9)


def test_a_reversed_order_costs_accuracy_and_edit_but_no_ari() -> None:
    truth = np.repeat(np.arange(4), 5)
    scores = score_floors(truth, 3 - truth, 4)
    assert (scores.ari, scores.accuracy) == (1.0, 0.0)
    assert scores.edit < 0.6
    assert order_similarity(truth, truth, 4) == 1.0
    assert order_similarity(np.arange(12), np.arange(12), 12) == 1.0


@given(arrays(np.int64, (4, 6), elements=st.integers(0, 9)), st.permutations(range(6)))
def test_similarity_ignores_the_transmitters_numbers(counts: np.ndarray, order: list[int]) -> None:
    """Check 11: the values are symmetric, in [0, 1] and 1 on the diagonal, however columns are numbered."""
    for kind in ("adapted", "plain", "shares"):
        one = similarity_of(counts, counts.sum(1) + 1, kind)
        np.testing.assert_allclose(one, similarity_of(counts[:, order], counts.sum(1) + 1, kind), atol=1e-12)
        np.testing.assert_allclose(one, one.T, atol=1e-12)
        assert (one >= 0).all()
        assert (one <= 1 + 1e-12).all()
        assert (np.diag(one) == 1).all()


@given(st.permutations(range(6)))
def test_the_order_ignores_the_clusters_numbers(numbers: list[int]) -> None:
    """Check 11: the same path, under the clusters' new names."""
    cost = symmetric(6, np.random.default_rng(3))
    path = held_karp(cost, 2)
    renamed = np.empty_like(cost)
    renamed[np.ix_(numbers, numbers)] = cost
    assert held_karp(renamed, numbers[2]) == tuple(numbers[each] for each in path)


def test_ward_of_many_points_clusters_a_sample_and_assigns_the_rest() -> None:
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.normal(place, 0.1, (200, 3)) for place in (0, 3, 6)])
    found = ward(points, 3, generator, most=60)
    assert adjusted_rand(np.repeat(np.arange(3), 200), found) == 1.0
    assert nearest_centroid(np.empty((0, 3)), points[:2]).shape == (0,)
    assert ward(points[:2], 3, generator).tolist() == [0, 1]


def test_unrelated_clusters_cost_much_and_not_infinitely() -> None:
    assert path_costs(np.zeros((2, 2))).max() == 1e6
    assert path_costs(np.eye(2), "negative").min() == -1
    assert path_costs(np.eye(2), "one_minus").max() == 1
    with pytest.raises(InvalidArgument, match="inverse"):
        path_costs(np.eye(2), "other")


def test_floor_names_are_put_in_order() -> None:
    assert order_floors(["F2", "B1", "F10", "F1", "B2"]) == ["B2", "B1", "F1", "F2", "F10"]
    assert order_floors(["3F", "LG1", "1F"]) == ["LG1", "1F", "3F"]
    assert [level_of(name) for name in ("G", "P1", "L2", "-2", "2B")] == [1, -1, 2, -2, -2]
    assert order_floors(["Roof", "F1"], {"Roof": 9}) == ["F1", "Roof"]
    with pytest.raises(InvalidArgument, match="names of all floors"):
        level_of("Roof")


def test_floors_are_named_after_the_labels() -> None:
    assert name_floors("B1", 1, 3) == ("B1", "F1", "F2")
    assert name_floors("3F", 2, 4) == ("2F", "3F", "4F", "5F")
    assert name_floors("1", 2, 3) == ("0", "1", "2")
    assert name_floors("G", 1, 2) == ("G", "F2")
    assert name_floors("LG2", 1, 3) == ("LG2", "LG1", "F1")
    assert name_floors("Lobby", 2, 3) == ("Lobby-1", "Lobby", "Lobby+1")
