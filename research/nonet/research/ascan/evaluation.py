"""What `nonet evaluate ascan` measures: published networks of disc and cup, baselines, sizes and layouts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nonet.research.ascan.counting import macs, parameters
from nonet.research.ascan.disc_cup_release import FAMILY
from nonet.research.ascan.disc_cup_scores import Score, score_brightest, score_graph, score_mean_mask
from nonet.research.ascan.layout_speed import LayoutCost, layout_costs
from nonet.research.ascan.network import PUBLISHED, build
from nonet.runtime.images import Preprocessing
from nonet.runtime.repository.layout import VersionFolder, read_model, scan
from nonet.runtime.repository.manifest import Manifest, read_manifest

SIDES = (128, 224, 320)


@dataclass(frozen=True)
class Size:
    """A published size: what is stated of it, and what its reconstruction has."""

    name: str
    parameters: int
    macs: int
    stated_parameters: float
    stated_macs: float


@dataclass(frozen=True)
class Results:
    """Everything that one run measured."""

    masks: list[Score]
    sizes: list[Size]
    layouts: list[LayoutCost]

    def as_json(self, command: str) -> str:
        return json.dumps({"command": command, **asdict(self)}, indent=1) + "\n"


def members(repository: Path) -> Iterator[tuple[VersionFolder, Manifest]]:
    """The newest version of each network of the family."""
    for name in scan(repository) if repository.is_dir() else ():
        folder = read_model(repository, name)
        if folder is None or not folder.versions:
            continue
        newest = folder.versions[-1]
        manifest = read_manifest(newest.path / "manifest.json")
        if manifest is not None and manifest.family == FAMILY:
            yield newest, manifest


def mask_scores(repository: Path, root: Path, split: str) -> list[Score]:
    """Dice of each published network and of the baselines. Raises FileNotFoundError if there is no
    network."""
    scores = []
    for folder, manifest in members(repository):
        assert manifest.preprocessing is not None
        spec = Preprocessing.from_manifest(manifest.preprocessing.model_dump())
        scores.append(score_graph(folder.path / "model.onnx", spec, root, split, folder.model))
    if not scores:
        raise FileNotFoundError(f"no network of the family '{FAMILY}' in the repository: train one first")
    return [*scores, score_brightest(root, split), score_mean_mask(root, split)]


def sizes() -> list[Size]:
    """The published sizes, from networks without memory."""
    found = []
    for name, (count, work) in PUBLISHED.items():
        with torch.device("meta"):
            network = build(name)
        found.append(Size(name, parameters(network), macs(network, 224), count, work))
    return found


def evaluate_all(repository: Path, root: Path, split: str, rounds: int = 10) -> Results:
    """Measure everything; the layouts take a minute or two of one core."""
    torch.set_num_threads(1)
    layouts = [cost for side in SIDES for cost in layout_costs(side, rounds)]
    return Results(mask_scores(repository, root, split), sizes(), layouts)
