"""What a version of a regressor carries beside its graph: the network that can be trained, and the numbers of
the source.

The numbers are a calibration, the settings of the adaptation, and how predictions and uncertainties were
distributed at the source, as shares at fixed places. No row of the source is among them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.calibration import Calibration, calibrate
from nonet.research.tasfar.density import DensityMap, Grid, density_map, grid_for
from nonet.research.tasfar.networks import NetworkFiles, Space, load_network, to_space
from nonet.research.tasfar.uncertainty import Answering, Estimates, UncertaintySpec
from nonet.runtime.errors import ModelRefused
from nonet.runtime.repository.companions import Companions
from nonet.runtime.repository.layout import MANIFEST_FILE
from nonet.runtime.repository.manifest import Manifest, read_manifest

__all__ = [
    "CALIBRATION_FILE",
    "NETWORK_FILE",
    "WEIGHTS_FILE",
    "Regressor",
    "SourceFacts",
    "Spread",
    "read_regressor",
    "source_facts",
]

NETWORK_FILE: Final = "network.json"
WEIGHTS_FILE: Final = "network.safetensors"
CALIBRATION_FILE: Final = "calibration.json"
_LARGEST_JSON, _LARGEST_WEIGHTS = 1 << 20, 64 << 20
_MOST_MAP_CELLS: Final = 4096
#: Places of a distribution; none is an extreme, which would be the value of one row.
SHARES: Final = tuple(round(each, 3) for each in np.linspace(0.02, 0.98, 25))


@dataclass(frozen=True)
class Spread:
    """How values were distributed: those below which the shares `SHARES` lie, of ``count`` values."""

    values: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread:
        """Of N values."""
        return cls(tuple(float(each) for each in np.quantile(values, SHARES)), len(values))

    def distance(self, values: NDArray[np.float64]) -> float:
        """The largest difference 0..1 of the shares of ``values`` [N] from those of the source (Kolmogorov
        and Smirnov's, at these places)."""
        places = np.asarray(self.values)
        ordered = np.sort(values)
        # Equal values make steps: a share of the source between the two sides of a step is no difference.
        below = np.searchsorted(ordered, places, "left") / len(ordered)
        upto = np.searchsorted(ordered, places, "right") / len(ordered)
        shares = np.asarray(SHARES)
        return float(np.maximum(np.maximum(below - shares, shares - upto), 0).max())


@dataclass(frozen=True)
class SourceFacts:
    """The content of ``calibration.json``.

    Args:
        calibration: in the network's space of labels.
        recipe: how a site is adapted to.
        space: of the labels.
        predictions: how each value of the label was distributed, in that space.
        uncertainty: how u was.
        map: of the confident predictions at the source.
    """

    calibration: Calibration
    recipe: Recipe
    space: Space
    predictions: tuple[Spread, ...]
    uncertainty: Spread
    map: DensityMap

    def to_json(self) -> bytes:
        """The file."""
        facts = {
            "calibration": self.calibration.to_facts(),
            "recipe": asdict(self.recipe),
            "space": self.space,
            "predictions": [asdict(each) for each in self.predictions],
            "uncertainty": asdict(self.uncertainty),
            "map": {**asdict(self.map.grid), "shares": np.round(self.map.shares, 7).tolist()},
        }
        return (json.dumps(facts, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> SourceFacts:
        """Raises ModelRefused for a file that is none."""
        try:
            facts = json.loads(content)
            if facts["space"] not in ("linear", "log1p"):
                raise ValueError("unknown space of labels")
            return cls(
                Calibration.from_facts(facts["calibration"]),
                Recipe(**facts["recipe"]),
                facts["space"],
                tuple(_spread(each) for each in facts["predictions"]),
                _spread(facts["uncertainty"]),
                _map(facts["map"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelRefused(f"{CALIBRATION_FILE} is none: {error}") from None


def _spread(facts: dict[str, Any]) -> Spread:
    values = tuple(float(each) for each in facts["values"])
    if len(values) != len(SHARES) or not np.isfinite(values).all():
        raise ValueError(f"a distribution is {len(SHARES)} finite numbers")
    return Spread(values, int(facts["count"]))


def _map(facts: dict[str, Any]) -> DensityMap:
    grid = Grid(tuple(facts["origins"]), float(facts["width"]), tuple(facts["counts"]))
    shares = np.asarray(facts["shares"], dtype=np.float64)
    if shares.shape != grid.counts or not np.isfinite(shares).all() or grid.width <= 0 or (shares < 0).any():
        raise ValueError("a map is the shares of its grid's cells")
    return DensityMap(grid, shares)


def source_facts(
    estimates: Estimates, labels: NDArray[np.float64], recipe: Recipe, space: Space
) -> SourceFacts:
    """Of estimates and labels [N, D] of source data that the model was not trained on. Raises ValueError for
    too few."""
    found, doubt = estimates.in_space(space)
    calibration = calibrate(found, doubt, to_space(labels, space))
    sure = calibration.confident(doubt)
    deviation, width = calibration.deviation(doubt[sure], float(np.ptp(found))), recipe.width
    grid = grid_for(found[sure], deviation, width)
    while grid.cells > _MOST_MAP_CELLS:
        width *= 1.25
        grid = grid_for(found[sure], deviation, width)
    known = density_map(found[sure], deviation, grid)
    spreads = tuple(Spread.of(column) for column in found.T)
    return SourceFacts(calibration, recipe, space, spreads, Spread.of(doubt), known)


@dataclass(frozen=True)
class Regressor:
    """A version that can be adapted."""

    answering: Answering
    facts: SourceFacts
    manifest: Manifest


def read_regressor(folder: Path) -> Regressor:
    """The network and the numbers of a version's folder; every file is checked against the manifest. Raises
    ModelRefused where one is missing, changed, or describes nothing."""
    manifest = read_manifest(folder / MANIFEST_FILE)
    if manifest is None:
        raise ModelRefused("a regressor without a manifest.json cannot be adapted")
    files = Companions(folder.parent.parent, folder, manifest)
    facts = SourceFacts.from_json(files.read(CALIBRATION_FILE, _LARGEST_JSON))
    kept = NetworkFiles(files.read(NETWORK_FILE, _LARGEST_JSON), files.read(WEIGHTS_FILE, _LARGEST_WEIGHTS))
    try:
        network = load_network(kept)
        answering = Answering(network, UncertaintySpec(**manifest.source.get("uncertainty", {})))
    except (ValueError, TypeError) as error:
        raise ModelRefused(f"it cannot be adapted: {error}") from None
    if network.spec.space != facts.space or network.spec.outputs != len(facts.predictions):
        raise ModelRefused("its network and its calibration are of different labels")
    return Regressor(answering.eval(), facts, manifest)
