"""From a network to a published version and back: export, proofs, manifest, evaluation of the graph."""

import json

import numpy as np
import pytest
import torch

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.calibration import KNOTS, LEVELS, Calibration, DeviationScale, Quantiles
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
from nonet.research.wild_jdd.photographs import TrainingSet
from nonet.research.wild_jdd.restore import restore
from nonet.research.wild_jdd.restorer import load_published_model
from nonet.research.wild_jdd.serving import Release, check_tiles, publish
from nonet.runtime.errors import NotFound

TILE = 48
SCALE = DeviationScale(tuple(0.5 + 0.2 * index for index in range(len(KNOTS))))
CALIBRATION = Calibration(SCALE, Quantiles({level: 1.5 * level for level in LEVELS}))


@pytest.fixture(scope="module")
def network() -> WildJdd:
    torch.manual_seed(3)
    network = WildJdd(NETWORKS["tiny"]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    return network


@pytest.fixture(scope="module")
def pictures() -> TrainingSet:
    images = [np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8) for seed in range(3)]
    return TrainingSet(images, images, images)


@pytest.fixture(scope="module")
def repository(network, pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    release = Release("tiny", "nonet train wild_jdd --preset tiny", True, {"psnr": 30.0})
    publish(root, "wild_jdd", network, CALIBRATION, release, pictures, tile=TILE)
    return root


def test_published_graph_equals_the_network_on_whole_pictures(network, repository):
    model = load_published_model(repository, "wild_jdd")
    readings = mosaic(torch.rand(1, 3, 62, 74))
    found, expected = model.restorer(readings), restore(network, readings)
    assert torch.allclose(found.image, expected.mean, atol=1e-5)
    noise = expected.noise_mode().sqrt().clamp(0, 1)
    std = (expected.log_std.exp() * SCALE(noise)).clamp(0.1 / 255, 1)
    assert torch.allclose(found.std, std, rtol=1e-4, atol=1e-6)
    assert torch.allclose(found.noise, noise, rtol=1e-4, atol=1e-6)


def test_published_factors_are_multiples_of_the_served_deviation(repository):
    model = load_published_model(repository, "wild_jdd")
    for level in (0.5, 0.9, 0.95):
        assert model.quantiles.factors[level] == pytest.approx(1.5 * level, abs=1e-4)


def test_manifest_says_where_the_version_comes_from(repository):
    manifest = json.loads((repository / "wild_jdd" / "1" / "manifest.json").read_text())
    assert manifest["task"] == "raw-restoration"
    assert manifest["source"]["tile"] == TILE
    assert any("demosaicnet" in source["name"] for source in manifest["data"])
    graph = (repository / "wild_jdd" / "1" / "model.onnx").read_bytes()
    assert b"/nonet/" not in graph
    assert b".py" not in graph


def test_a_tile_is_answered_alike_in_any_batch(network, pictures, repository):
    form = TileForm(network, SCALE)
    session = open_session(repository / "wild_jdd" / "1" / "model.onnx")
    tiles = check_tiles(pictures, TILE, 8)
    check_batch_invariant(session, tiles)
    assert check_equal_to_torch(session, form, tiles[:2]) < 1e-4
    assert run_graph(session, tiles[:3])["image"].shape == (3, 3, TILE, TILE)


def test_a_graph_that_differs_is_refused(network, pictures, repository, tmp_path):
    graph = repository / "wild_jdd" / "1" / "model.onnx"
    torch.manual_seed(8)
    other = WildJdd(NETWORKS["tiny"]).eval()
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_equal_to_torch(open_session(graph), TileForm(other, SCALE), check_tiles(pictures, TILE, 2))
    with pytest.raises(ValueError, match="multiple of 4"):
        export_graph(TileForm(network, SCALE), 46, tmp_path / "odd.onnx")


def test_absent_models_are_named(tmp_path):
    with pytest.raises(NotFound, match="nonet train wild_jdd"):
        load_published_model(tmp_path, "wild_jdd")
