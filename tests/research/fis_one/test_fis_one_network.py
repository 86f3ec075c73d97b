"""RF-GNN: its draws, its layers, its gradient, and that serving a scan is the same arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import chisquare

from nonet.research.fis_one.adam import AdamW
from nonet.research.fis_one.data import SurveyedBuilding
from nonet.research.fis_one.graph import GraphRule, SignalGraph, build_graph
from nonet.research.fis_one.identifier import scan_embeddings, weight_rows
from nonet.research.fis_one.identifier_fit import scan_weights
from nonet.research.fis_one.network import Pairs, RfGnn, initial_states
from nonet.research.fis_one.sampling import AliasTable, Sampler, full_neighbourhood
from nonet.research.fis_one.training import Trainer, embed, unit_rows
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.scans import Scans
from tests.support.synthetic_wifi import QUICK_PAPER

SCANS = Scans.build(
    [
        ("a", {"w": -50.0, "x": -80.0, "y": -90.0, "z": -90.0}),
        ("b", {"x": -60.0, "y": -70.0}),
        ("c", {"z": -45.0, "weak": -95.0}),
        ("nothing", {"weak": -91.0}),
    ]
)


def drawn(dimension: int, hidden: int, output: int) -> RfGnn:
    return RfGnn.drawn(dimension, hidden, output, np.random.default_rng(0))


@pytest.fixture(scope="module")
def graph() -> SignalGraph:
    return build_graph(SCANS, GraphRule())


def test_weak_readings_and_what_they_leave_bare_are_no_nodes(graph: SignalGraph) -> None:
    assert (graph.scans, graph.transmitters, graph.edges) == (3, 4, 7)
    assert graph.weight[:4].tolist() == [70, 40, 30, 30]
    assert graph.scan_rows.tolist() == [0, 1, 2]
    with pytest.raises(InvalidArgument, match="-30 dBm"):
        build_graph(SCANS, GraphRule(weakest=-30.0))


@pytest.mark.parametrize("weights", [(70, 40, 30, 30), (1, 1, 1, 97), (5,), (1e-3, 1, 1e3, 7, 7, 0.5)])
def test_neighbours_are_drawn_in_proportion_to_their_weights(weights: tuple[float, ...]) -> None:
    """Check 8: chi-square over 100,000 draws, the row between two others."""
    row = np.array(weights, float)
    table = AliasTable(np.array([0, 2, 2 + len(row), 5 + len(row)]), np.concatenate([[1, 9], row, [3, 3, 4]]))
    drawn = table.draw(np.array([1]), 100_000, np.random.default_rng(8))[0] - 2
    seen = np.bincount(drawn, minlength=len(row))
    expected = 100_000 * row / row.sum()
    assert len(seen) == len(row)
    assert len(row) == 1 or chisquare(seen, expected).pvalue > 0.001


def test_negatives_are_drawn_by_degree(graph: SignalGraph) -> None:
    """Check 8."""
    law = graph.degree**0.75
    drawn = Sampler(graph, "sampling", np.random.default_rng(1)).negatives(100_000)
    seen = np.bincount(drawn, minlength=graph.nodes)
    assert chisquare(seen, 100_000 * law / law.sum()).pvalue > 0.001


def test_edges_and_walks_follow_the_weights(graph: SignalGraph) -> None:
    sampler = Sampler(graph, "sampling", np.random.default_rng(2))
    left, right = sampler.edges(50_000)
    scan = np.minimum(left, right)
    share = np.bincount(scan, minlength=3)[:3] / 50_000
    assert share == pytest.approx(np.array([170, 110, 75]) / 355, abs=0.01)
    assert 0.45 < (left < right).mean() < 0.55
    walks = sampler.walks(1000, 4)
    assert walks.shape == (1000, 5)
    near = full_neighbourhood(graph, "none")
    assert all(near[one, other] > 0 for one, other in zip(walks[:, 0], walks[:, 1], strict=True))


@pytest.mark.parametrize("attention", ["none", "sampling", "sampling+aggregate"])
def test_aggregates_are_weighted_means(graph: SignalGraph, attention: str) -> None:
    """Check 9: rows add up to 1, and a layer is the dense formula."""
    some = Sampler(graph, attention, np.random.default_rng(3)).neighbourhood(10)
    full = full_neighbourhood(graph, attention)
    for matrix in (some, full):
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    network, initial = drawn(4, 5, 3), initial_states(graph.nodes, 4, np.random.default_rng(4))
    dense, learnt = full.toarray(), network.parameters
    hidden = np.concatenate([initial, dense @ initial], 1) @ learnt["first.weight"].T + learnt["first.bias"]
    hidden = np.maximum(hidden, 0)
    expected = np.concatenate([hidden, dense @ hidden], 1) @ learnt["second.weight"].T + learnt["second.bias"]
    found = network.outer_states(network.inner_states(initial, full), full)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_with_equal_weights_attention_changes_nothing() -> None:
    """Check 9."""
    even = build_graph(Scans.build([("a", {"x": -50.0, "y": -50.0}), ("b", {"y": -50.0})]), GraphRule())
    draws = [
        Sampler(even, attention, np.random.default_rng(5)).neighbourhood(6).toarray()
        for attention in ("none", "sampling+aggregate")
    ]
    np.testing.assert_allclose(draws[0], draws[1], atol=1e-7)


PAIRS = Pairs(np.array([0, 1, 4]), np.array([3, 4, 1]), np.array([[2, 5], [6, 3], [0, 2]]))


def test_the_gradient_is_that_of_finite_differences(graph: SignalGraph) -> None:
    """Check 10, in double precision, with dropout."""
    network = drawn(3, 4, 3)
    learnt = {name: value.astype(np.float64) for name, value in network.parameters.items()}
    network = RfGnn(learnt)
    generator = np.random.default_rng(6)
    initial = initial_states(graph.nodes, 3, generator).astype(np.float64)
    kept = (generator.random((graph.nodes, 4)) > 0.2) / 0.8
    full = full_neighbourhood(graph, "sampling").astype(np.float64)
    _, slope = network.slope(initial, full, full, PAIRS, kept)
    for name, value in learnt.items():
        for index in np.ndindex(value.shape):
            value[index] += 1e-6
            above, _ = network.slope(initial, full, full, PAIRS, kept)
            value[index] -= 2e-6
            below, _ = network.slope(initial, full, full, PAIRS, kept)
            value[index] += 1e-6
            assert slope[name][index] == pytest.approx((above - below) / 2e-6, abs=1e-7)


def test_loss_gradient_and_steps_are_those_of_a_framework_for_training(graph: SignalGraph) -> None:
    """Twenty steps of AdamW on drawn neighbourhoods end at the weights that PyTorch ends at."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    network, generator = drawn(3, 4, 3), np.random.default_rng(7)
    initial = initial_states(graph.nodes, 3, generator)
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in network.parameters.items()}
    sampler = Sampler(graph, "sampling+aggregate", generator)
    ours, other = AdamW(network.parameters, 0.01), torch.optim.AdamW(theirs.values(), lr=0.01)
    for _ in range(20):
        inner, outer = sampler.neighbourhood(3), sampler.neighbourhood(5)
        loss, slope = network.slope(initial, inner, outer, PAIRS)
        ours.step(slope)
        states = torch.from_numpy(initial)
        for name, hop in (("first", inner), ("second", outer)):
            near = torch.from_numpy(hop.toarray()) @ states
            both = torch.cat([states, near], 1)
            states = functional.linear(both, theirs[f"{name}.weight"], theirs[f"{name}.bias"])
            states = torch.relu(states) if name == "first" else states
        one, right = states[PAIRS.left], states[PAIRS.right]
        wrong = (states[PAIRS.negatives] @ one[:, :, None])[:, :, 0]
        scores = torch.cat([-(one * right).sum(1, keepdim=True), wrong], 1)
        expected = functional.softplus(scores).mean()
        other.zero_grad()
        expected.backward()
        assert loss == pytest.approx(expected.item(), abs=1e-5)
        other.step()
    for name, value in network.parameters.items():
        np.testing.assert_allclose(value, theirs[name].detach().numpy(), atol=1e-4)


def test_renumbered_scans_have_the_same_embeddings(building: SurveyedBuilding) -> None:
    """Check 11, with the initial states permuted alike."""
    order = np.random.default_rng(7).permutation(len(building.scans))
    one, other = (build_graph(scans, GraphRule()) for scans in (building.scans, building.scans.take(order)))
    network, initial = drawn(32, 32, 32), initial_states(one.nodes, 32, np.random.default_rng(8))
    moved = initial.copy()
    moved[: one.scans] = initial[: one.scans][order]
    first = embed(network, initial, one, "sampling")[1]
    second = embed(network, moved, other, "sampling")[1]
    np.testing.assert_allclose(first[: one.scans][order], second[: one.scans], atol=1e-5)


def test_serving_a_fitted_scan_gives_its_embedding(building: SurveyedBuilding) -> None:
    """Check 12: its own initial vector and full neighbourhoods, through the arrays that serve."""
    graph = build_graph(building.scans, GraphRule())
    initial = initial_states(graph.nodes, 32, np.random.default_rng(9))
    trainer = Trainer(graph, initial, dataclasses.replace(QUICK_PAPER, steps=20), seed=0)
    trainer.run(lambda state: None)
    hidden, final = embed(trainer.network, initial, graph, "sampling+aggregate")
    arrays = {
        **trainer.network.parameters,
        "outer_states": initial[graph.scans :],
        "inner_states": hidden[graph.scans :],
        "even": np.zeros(1, np.float32),
    }
    own = initial[: graph.scans]
    expected = unit_rows(final[: graph.scans])
    np.testing.assert_allclose(scan_embeddings(arrays, scan_weights(graph), own), expected, atol=1e-5)
    dense = weight_rows(building.scans.dense()[:, graph.columns], GraphRule())
    np.testing.assert_allclose(scan_embeddings(arrays, dense, own), expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"positives": 3}, {"dropout": 0.2}, {"attention": "none"}])
def test_a_trainer_taken_up_again_ends_at_the_same_weights(
    building: SurveyedBuilding, changes: dict[str, object]
) -> None:
    recipe = dataclasses.replace(QUICK_PAPER, steps=12, **changes)
    graph = build_graph(building.scans, recipe.rule)
    initial = initial_states(graph.nodes, 32, np.random.default_rng(1))
    whole = Trainer(graph, initial, recipe, seed=3)
    whole.run(lambda state: None)
    first = Trainer(graph, initial, recipe, seed=3)
    for _ in range(5):
        first.advance()
    second = Trainer(graph, initial, recipe, seed=3)
    second.restore(*first.state())
    second.run(lambda state: None)
    assert second.finished
    for name, value in whole.network.parameters.items():
        np.testing.assert_array_equal(value, second.network.parameters[name])


def test_unknown_settings_are_refused(graph: SignalGraph) -> None:
    with pytest.raises(InvalidArgument, match="sampling"):
        Sampler(graph, "most", np.random.default_rng(0))
    with pytest.raises(InvalidArgument, match="offset"):
        GraphRule(weight="linear")
    with pytest.raises(InvalidArgument, match="-120"):
        GraphRule(weakest=-120.0)
