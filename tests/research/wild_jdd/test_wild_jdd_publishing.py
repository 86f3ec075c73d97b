"""From a network to a published version and back: export, proofs, manifest, evaluation of the graph."""

import json
import math

import pytest
import torch

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.calibration import KNOTS, LEVELS, DeviationScale, Quantiles
from nonet.research.wild_jdd.network import NETWORKS, WildJdd
from nonet.research.wild_jdd.onnx_graph import (
    ExportError,
    TileForm,
    check_batch_invariant,
    check_equal_to_torch,
    export_graph,
    open_session,
    run_graph,
)
from nonet.research.wild_jdd.photographs import TrainingSet, load_training_set
from nonet.research.wild_jdd.restore import restore
from nonet.research.wild_jdd.restorer import load_published_model
from nonet.research.wild_jdd.serving import DATA, Release, check_tiles, interval_factors
from nonet.research.wild_jdd.train import load_network
from nonet.runtime.errors import NotFound

pytestmark = pytest.mark.slow
TILE = 320


@pytest.fixture(scope="module")
def repository(trained):
    return trained.repository


@pytest.fixture(scope="module")
def network(trained) -> WildJdd:
    return load_network(trained.runs / "tiny" / "checkpoint.safetensors")[0]


@pytest.fixture(scope="module")
def pictures(data) -> TrainingSet:
    return load_training_set(data)


def test_published_graph_equals_the_network_on_whole_pictures(network, repository):
    model = load_published_model(repository, "wild_jdd")
    readings = mosaic(torch.rand(1, 3, 62, 74, generator=torch.Generator().manual_seed(0)))
    found, expected = model.restorer(readings), restore(network, readings)
    assert torch.allclose(found.image, expected.mean, atol=1e-5)
    noise = expected.noise_mode().sqrt().clamp(0, 1)
    assert torch.allclose(found.noise, noise, rtol=1e-4, atol=1e-6)
    # The deviation is the raw scale times something linear in the logarithm of the noise between the knots.
    ratio = (found.std / expected.log_std.exp())[found.std > 0.11 / 255]
    place = torch.log(noise[found.std > 0.11 / 255] * 255).clamp(math.log(KNOTS[0]), math.log(KNOTS[-1]))
    knots = torch.tensor([math.log(knot) for knot in KNOTS])
    above = torch.searchsorted(knots, place).clamp(1, len(KNOTS) - 1)
    share = (place - knots[above - 1]) / (knots[above] - knots[above - 1])
    hats = torch.zeros(len(place), len(KNOTS), dtype=torch.float64)
    hats[torch.arange(len(place)), above - 1] = 1 - share.double()
    hats[torch.arange(len(place)), above] += share.double()
    factors = torch.linalg.pinv(hats) @ ratio.double()
    assert float((hats @ factors / ratio - 1).abs().max()) < 1e-3


def test_published_factors_are_multiples_of_the_served_deviation(repository):
    quantiles = Quantiles({level: 1.5 * level for level in LEVELS})
    assert interval_factors(quantiles)["95"] == pytest.approx(1.5 * 0.95, abs=1e-4)
    manifest = json.loads((repository / "wild_jdd" / "1" / "manifest.json").read_text())
    read = load_published_model(repository, "wild_jdd").quantiles.factors
    assert {f"{round(100 * level)}": factor for level, factor in read.items()} == manifest["source"][
        "interval_factors"
    ]


def test_manifest_says_where_the_version_comes_from(repository):
    manifest = json.loads((repository / "wild_jdd" / "1" / "manifest.json").read_text())
    assert manifest["task"] == "raw-restoration"
    assert manifest["source"]["tile"] == TILE
    assert "BSDS500 training images" in [source["name"] for source in manifest["data"]]
    graph = (repository / "wild_jdd" / "1" / "model.onnx").read_bytes()
    assert b"/nonet/" not in graph
    assert b".py" not in graph


def test_every_weight_that_a_version_learnt_from_is_named():
    names = [source.name for source in Release("taught", "", published_start=True, taught=True).sources()]
    assert sum("demosaicnet" in name for name in names) == 2
    assert Release("small", "", published_start=False).sources() == DATA


def test_a_tile_is_answered_alike_in_any_batch(pictures, repository):
    session = open_session(repository / "wild_jdd" / "1" / "model.onnx")
    tiles = check_tiles(pictures, TILE, 8)
    check_batch_invariant(session, tiles)
    assert run_graph(session, tiles[:3])["image"].shape == (3, 3, TILE, TILE)


def test_a_graph_that_differs_is_refused(network, pictures, repository, tmp_path):
    graph = repository / "wild_jdd" / "1" / "model.onnx"
    torch.manual_seed(8)
    other = WildJdd(NETWORKS["tiny"]).eval()
    form = TileForm(other, DeviationScale())
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_equal_to_torch(open_session(graph), form, check_tiles(pictures, TILE, 2))
    with pytest.raises(ValueError, match="multiple of 4"):
        export_graph(TileForm(network, DeviationScale()), 46, tmp_path / "odd.onnx")


def test_absent_models_are_named(tmp_path):
    with pytest.raises(NotFound, match="nonet train wild_jdd"):
        load_published_model(tmp_path, "wild_jdd")
