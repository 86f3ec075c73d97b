"""One face for a network in PyTorch and for a published graph: mosaic in, picture and uncertainty out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nonet.research.wild_jdd.bayer import Phase
from nonet.research.wild_jdd.calibration import DeviationScale, Quantiles
from nonet.research.wild_jdd.network import WildJdd
from nonet.research.wild_jdd.onnx_graph import open_session, run_graph
from nonet.research.wild_jdd.restore import Maps, Tiling, restore, restore_maps
from nonet.research.wild_jdd.restored import Restored, Restorer
from nonet.runtime.errors import NotFound
from nonet.runtime.repository.layout import read_model


def network_restorer(network: WildJdd, scale: DeviationScale | None = None) -> Restorer:
    """A PyTorch network as a restorer; without `scale` the deviation is the network's raw scale."""
    scale = scale or DeviationScale()

    def run(readings: Tensor) -> Restored:
        posterior = restore(network, readings)
        noise = posterior.noise_mode().sqrt()
        std = torch.full_like(posterior.mean, float("nan"))
        if posterior.log_std is not None:
            std = posterior.log_std.exp() * scale(noise)
        return Restored(posterior.mean, std, noise)

    return run


@dataclass(frozen=True)
class PublishedModel:
    """A version of the repository, ready to run: its graph, tile size, halo and interval factors by level."""

    name: str
    version: str
    source: dict[str, object]
    quantiles: Quantiles
    restorer: Restorer


def load_published_model(repository: Path, name: str) -> PublishedModel:
    """The newest version of a Wild-JDD model in a repository.

    Raises:
        NotFound: if the repository holds no such model, or the model is of another system.
    """
    model = read_model(repository, name)
    if model is None or not model.versions:
        raise NotFound(
            f"the repository holds no model '{name}'; train one with: nonet train wild_jdd", param="model"
        )
    newest = max(model.versions, key=lambda version: int(version.version))
    manifest = json.loads((newest.path / "manifest.json").read_text())
    source = manifest.get("source", {})
    if source.get("system") != "wild_jdd":
        raise NotFound(f"model '{name}' is not a Wild-JDD network", param="model")
    factors = {int(level) / 100: float(factor) for level, factor in source["interval_factors"].items()}
    tiling = Tiling(size=int(source["tile"]), halo=int(source["halo"]), exact=True)
    return PublishedModel(
        name, newest.version, source, Quantiles(factors), graph_restorer(newest.path / "model.onnx", tiling)
    )


def graph_restorer(graph: Path, tiling: Tiling) -> Restorer:
    """An exported graph as a restorer, through ONNX Runtime on one thread."""
    session = open_session(graph)

    def tile_maps(packed: Tensor) -> Maps:
        outputs = run_graph(session, packed.float().contiguous().numpy())
        return {name: torch.from_numpy(values) for name, values in outputs.items()}

    def run(readings: Tensor) -> Restored:
        maps = restore_maps(tile_maps, readings, phase=Phase.RGGB, tiling=tiling)
        return Restored(maps["image"], maps["std"], maps["noise"])

    return run


def as_method(restorer: Restorer) -> Callable[[Tensor, float], Tensor]:
    """A restorer as a method of the tables: blind, so the true level is not used."""
    return lambda readings, sigma: restorer(readings).image
