"""The matcher: shares that sum to 1, no order among regions, no trace of padding, the same when exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nonet.research.fasternet.onnx_export import ExportError
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.grounding.choosing import expected_error
from nonet.research.grounding.network import Matcher, ServingForm, Shape
from nonet.research.grounding.release import INPUTS, OUTPUTS, check_alone, check_inputs, export

# The exporter takes a minute where other work shares the core.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def form() -> ServingForm:
    torch.manual_seed(0)
    return ServingForm(Matcher(Shape(width=24, heads=2, pair=4, layers=1))).eval()


def asked(form: ServingForm, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        scores, nothing = form(*(torch.from_numpy(each) for each in inputs.values()))
    return scores.numpy(), nothing.numpy()


def test_shares_sum_to_one_and_padding_has_none(form: ServingForm) -> None:
    inputs = check_inputs(5)
    scores, nothing = asked(form, inputs)
    assert scores.sum(1) + nothing == pytest.approx(np.ones(5), abs=1e-5)
    assert not scores[inputs["region_mask"] == 0].any()


def test_the_order_of_regions_does_not_matter(form: ServingForm) -> None:
    inputs = check_inputs(3)
    order = np.random.default_rng(0).permutation(64)
    moved = {
        name: each[:, order] if "region" in name or name == "boxes" else each for name, each in inputs.items()
    }
    assert asked(form, moved)[0] == pytest.approx(asked(form, inputs)[0][:, order], abs=1e-5)


def test_what_padding_holds_does_not_matter(form: ServingForm) -> None:
    inputs = check_inputs(3)
    filled = {name: each.copy() for name, each in inputs.items()}
    filled["region_names"][inputs["region_mask"] == 0] = 0.3
    filled["region_looks"][inputs["region_mask"] == 0] = 0.3
    filled["tokens"][inputs["token_mask"] == 0] = 5
    assert asked(form, filled)[0] == pytest.approx(asked(form, inputs)[0], abs=1e-5)


def test_without_regions_nothing_is_certain(form: ServingForm) -> None:
    inputs = check_inputs(2)
    for name in ("boxes", "region_mask", "region_scores", "region_names", "region_looks"):
        inputs[name][:] = 0
    scores, nothing = asked(form, inputs)
    assert nothing == pytest.approx(np.ones(2))
    assert not scores.any()


def test_the_graph_answers_as_the_network(form: ServingForm, tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    check = export(form, graph)
    assert set(check) == {*INPUTS, *OUTPUTS}
    session = open_session(graph)
    other = check_inputs(7, seed=3)
    answers = session.run(list(OUTPUTS), other)
    for answer, expected in zip(answers, asked(form, other), strict=True):
        assert answer == pytest.approx(expected, abs=1e-4)
    assert not any(node.metadata_props or node.doc_string for node in onnx.load(graph).graph.node)
    wrong = {name: check[name] + np.float32(1e-7) * (name == "scores") for name in OUTPUTS}
    with pytest.raises(ExportError, match="not bit-equal"):
        check_alone(session, check_inputs(4), wrong)


def test_calibration_error_is_none_where_probabilities_are_true() -> None:
    assert expected_error(np.array([0.05, 0.05, 0.95]), np.array([False, False, True])) == pytest.approx(0.05)
    assert expected_error(np.full(10, 0.95), np.zeros(10, np.bool_)) == pytest.approx(0.95)
