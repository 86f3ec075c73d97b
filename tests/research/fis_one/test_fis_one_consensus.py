"""Choosing among partitions: what looks like floors, and what most of those agree on."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st

from nonet.research.fis_one.building import FitOptions
from nonet.research.fis_one.consensus import Clusters, loudness_gap, most_agreed, spillover_cost
from nonet.research.fis_one.data import SurveyedBuilding, load_building
from nonet.research.fis_one.description import doubt_of_floors
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.identifier import identify
from nonet.research.fis_one.indexing import held_karp, path_cost, path_costs
from nonet.research.fis_one.metrics import adjusted_rand
from nonet.research.fis_one.propagation import co_clusters
from nonet.research.fis_one.spillover import adapted_jaccard
from tests.support.synthetic_wifi import QUICK, made_up

pytestmark = pytest.mark.slow


def test_spillover_cost_by_hand() -> None:
    heard = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=bool))
    # counts (2, 1, 0) and (1, 0, 3): adapted Jaccard similarity 0.235294 (specification, section 11)
    assert spillover_cost(heard, np.array([0, 0, 1, 1, 1]), 2) == pytest.approx(1 / 0.235294, abs=1e-4)
    assert spillover_cost(heard, np.zeros(5, np.int64), 1) == 0


def test_floors_are_joined_in_their_order_and_wings_dearly() -> None:
    building = made_up(floors=5)
    readings = building.scans.dense(building.scans.transmitters)
    heard = sparse.csr_matrix(readings < 0)
    cost = path_costs(
        adapted_jaccard(np.stack([(readings[building.floor == f] < 0).sum(0) for f in range(5)]))
    )
    best = min(path_cost(cost, held_karp(cost, start)) for start in range(5))
    assert spillover_cost(heard, building.floor, 5) == pytest.approx(best / 4)
    loud = np.where(readings < 0, readings, -100.0).astype(np.float32)
    upper = building.floor >= 3
    twisted = np.where(upper, np.arange(len(upper)) % 2 + 3, building.floor)  # two floors mixed
    assert loudness_gap(loud, building.floor, 5) > loudness_gap(loud, twisted, 5) + 1


@given(
    st.lists(st.permutations(range(4)), min_size=2, max_size=5),
    st.integers(0, 10_000),
)
def test_the_choice_does_not_see_the_numbers_of_clusters(names: list[list[int]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    camp, other = generator.integers(0, 4, 60), generator.integers(0, 4, 60)
    votes = [np.array(each, np.int32)[camp] for each in names]
    chosen, _ = most_agreed([other.astype(np.int32), *votes], 4)
    assert adjusted_rand(chosen, camp) == pytest.approx(1)


def test_the_one_in_the_middle_is_chosen() -> None:
    truth = np.repeat(np.arange(3), 20)
    votes = []
    for start in range(4):
        vote = truth.copy()
        vote[start * 15 : start * 15 + 4] = (vote[start * 15 : start * 15 + 4] + 1) % 3
        votes.append(vote.astype(np.int32))
    votes.insert(2, truth.astype(np.int32))
    chosen, agreement = most_agreed(votes, 3)
    assert chosen is votes[2]
    alike = [adjusted_rand(one, other) for one, other in itertools.combinations(votes, 2)]
    assert max(alike) < 1
    others = [adjusted_rand(truth, each) for each in votes if each is not chosen]
    assert agreement == pytest.approx(np.mean(others))
    assert most_agreed(votes[:1], 3)[1] is None


def test_trust_grows_with_agreement() -> None:
    label = np.zeros(1, np.int32)
    trust = [Clusters(label, agreement).trust for agreement in np.linspace(0.5, 1, 11)]
    assert trust == sorted(trust)
    assert trust[0] < 0.01 < 0.98 < trust[-1] < 1
    assert Clusters(label).trust == 1


def test_doubt_is_graded_by_how_many_scans_are_expected_right() -> None:
    """ "Likely wrong" was said of a building of which 97 % were right (agreement 0.80)."""
    label = np.zeros(1, np.int32)
    said = {agreement: doubt_of_floors(Clusters(label, agreement), 5) for agreement in (0.6, 0.8, 0.86, 0.97)}
    assert "likely wrong (about 21%" in (said[0.6] or "")
    assert "wrong for many scans (about 59%" in (said[0.8] or "")
    assert "wrong in places (about 8" in (said[0.86] or "")
    assert said[0.97] is None
    assert doubt_of_floors(Clusters(label), 5) is None


def test_co_clusters_are_among_the_candidates_where_there_is_enough_of_both() -> None:
    truth = np.repeat(np.arange(3), 20)
    heard = np.full((60, 15), 1.0) + 99.0 * (truth[:, None] == np.arange(15) // 5)
    weights = sparse.csr_matrix(heard + np.random.default_rng(0).random((60, 15)))
    found = co_clusters(weights, 3, 0)
    assert found is not None
    assert adjusted_rand(found, truth) == pytest.approx(1)
    assert co_clusters(weights[:4], 3, 0) is None
    assert co_clusters(weights[:, :2], 3, 0) is None


def test_where_floors_are_not_found_confidence_and_a_warning_say_so(few_partitions: None) -> None:
    """UJI 0: long wings outweigh the slabs, and a quarter of the scans is on its right floor."""
    real = surveyed("uji0").balanced(80, seed=0)
    fitted = fit_building(real.scans, real.label(0), FitOptions(names=real.floors, seed=0), recipe=QUICK)
    assert any("ways to group the scans agree" in warning for warning in fitted.facts["warnings"])
    assert fitted.facts["quality"]["trust"] < 0.7
    distribution, _ = identify(fitted.network, real.scans.dense(fitted.transmitters))
    right = (distribution.argmax(1) == real.floor).mean()
    assert distribution.max(1).mean() == pytest.approx(right, abs=0.45)  # 0.74 without trust
    assert distribution.sum(1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("case", "mean_ari", "least_ari", "mean_accuracy"),
    [
        ("5cd56bb5", 0.91, 0.86, 0.93),
        ("5cd969be/164", 0.88, 0.88, 0.94),
        ("5cd969be", 0.95, 0.95, 0.95),
        ("cetc331", 0.95, 0.95, 0.95),
    ],
)
def test_the_committed_results_meet_the_targets(
    case: str, mean_ari: float, least_ari: float, mean_accuracy: float
) -> None:
    """The targets of section 12 for every seed that the study has, also where the floors' scans are uneven
    (5cd969be); with room on 5cd56bb5 (there 0.95, 0.92 and 0.97). `nonet evaluate fis_one` measures anew."""
    table = json.loads((Path(__file__).parents[3] / "docs" / "results" / "fis_one.json").read_text())["rows"]
    rows = [row for row in table if (row["case"], row["method"]) == (case, "FIS-ONE, default")]
    ari, edit, accuracy = ([row[score] for row in rows] for score in ("ari", "edit", "accuracy"))
    assert len(rows) >= 10
    assert set(edit) == {1.0}
    assert min(ari) >= least_ari
    assert np.mean(ari) >= mean_ari
    assert np.mean(accuracy) >= mean_accuracy


def surveyed(name: str) -> SurveyedBuilding:
    try:
        return load_building(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
