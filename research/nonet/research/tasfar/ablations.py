"""What each part of the published recipe is worth on the housing task: the map, the credibility, the
settings, and other kinds of uncertainty, each against the whole (specification, section 10)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from nonet.research.tasfar.adaptation import fine_tune
from nonet.research.tasfar.calibration import SEGMENTS, SURE_SHARE, Calibration, calibrate
from nonet.research.tasfar.density import DensityMap, mass_of
from nonet.research.tasfar.housing import HOUSING
from nonet.research.tasfar.networks import Ensemble, NetworkSpec, SourceNetwork, members_of
from nonet.research.tasfar.pseudo_labels import PseudoLabels, TooFewConfident, pseudo_labels
from nonet.research.tasfar.source_training import train_source
from nonet.research.tasfar.tasks import Domains, Split, mean_square_error
from nonet.research.tasfar.uncertainty import Answering, Estimates, UncertaintySpec, estimates_of

__all__ = ["VARIANTS", "Variant", "ablations"]

Say = Callable[[str], None]
_DROPOUT: Final = UncertaintySpec()


@dataclass(frozen=True)
class Variant:
    """One change of the recipe.

    Args:
        eta: share of the calibration rows that the model is sure of.
        segments: q, of the line of the errors.
        width: g, of the map's cells, in 100,000 USD.
        labels: ``map``; ``own``, the predictions, as if the map were uniform; ``wrong map``, by how the
            labels of the source are distributed.
        credible: whether rows are weighted by their credibility.
        spec, uncertainty: of the source model.
    """

    eta: float = SURE_SHARE
    segments: int = SEGMENTS
    width: float = HOUSING.recipe.width
    labels: str = "map"
    credible: bool = True
    spec: NetworkSpec = HOUSING.spec
    uncertainty: UncertaintySpec = _DROPOUT


_ONE: Final = dataclasses.replace(HOUSING.spec, dropout=0.0)
VARIANTS: Final[Mapping[str, Variant]] = {
    "published": Variant(),
    "uniform map (labels are the predictions)": Variant(labels="own"),
    "wrong map (labels of the source)": Variant(labels="wrong map"),
    "no credibility": Variant(credible=False),
    **{f"eta {eta:g}": Variant(eta=eta) for eta in (0.7, 0.8, 0.95)},
    **{f"q {segments}": Variant(segments=segments) for segments in (10, 20, 80)},
    **{f"g {width:g}": Variant(width=width) for width in (0.1, 0.25, 1.0)},
    "five passes with dropout": Variant(uncertainty=UncertaintySpec(passes=5)),
    "ensemble of five": Variant(
        spec=dataclasses.replace(_ONE, members=5), uncertainty=UncertaintySpec("ensemble")
    ),
    "learned variance": Variant(
        spec=dataclasses.replace(_ONE, learned_variance=True),
        uncertainty=UncertaintySpec("learned_variance"),
    ),
}


def ablations(root: Path, seeds: int, say: Say) -> dict[str, Any]:
    """By variant, the means over the seeds and every seed: share of uncertain rows, and the mean square
    errors of all rows of the site that are adapted to and of the uncertain ones, before and after.

    Raises FileNotFoundError where the data are absent.
    """
    domains = HOUSING.load(root)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(seeds):
        for name, row in one_seed(domains, seed).items():
            rows[name].append(row)
            say(f"seed {seed}, {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    return {name: {"mean": _mean(found), "each": found} for name, found in rows.items()}


def one_seed(
    domains: Domains, seed: int, variants: Mapping[str, Variant] = VARIANTS
) -> dict[str, dict[str, float]]:
    """The figures of each variant; a source model is trained for each kind of network."""
    source, site = Split.of(domains.source, seed), Split.of(domains.target, seed).open
    trained: dict[NetworkSpec, Answering] = {}
    found: dict[str, dict[str, float]] = {}
    for name, variant in variants.items():
        if variant.spec not in trained:
            trained[variant.spec], _ = train_source(
                HOUSING, source, seed, spec=variant.spec, uncertainty=variant.uncertainty
            )
        answering = Answering(trained[variant.spec].network, variant.uncertainty).eval()
        before = estimates_of(answering, site.tensor())
        held = estimates_of(answering, source.calibrate.tensor()), source.calibrate.labels
        found[name] = _figures(variant, answering, before, held, (site.inputs, site.labels), seed)
    return found


def _figures(
    variant: Variant,
    answering: Answering,
    before: Estimates,
    held: tuple[Estimates, NDArray[np.float64]],
    site: tuple[NDArray[np.float32], NDArray[np.float64]],
    seed: int,
) -> dict[str, float]:
    known, labels = held
    value, doubt = before.in_space("linear")
    calibration = calibrate(
        *known.in_space("linear"), labels, sure_share=variant.eta, segments=variant.segments
    )
    unsure = ~calibration.confident(doubt)
    row = {"uncertain_share": float(unsure.mean()), "before": mean_square_error(value, site[1])}
    largest = max(float(np.ptp(value)), 1e-12)
    try:
        taught = pseudo_labels(value[:, 0], doubt, calibration, variant.width, largest=largest)
    except TooFewConfident:
        return {**row, "after": row["before"]}
    if variant.labels == "own":
        taught = dataclasses.replace(taught, labels=value[:, 0])
    elif variant.labels == "wrong map":
        taught = dataclasses.replace(
            taught, labels=_by(labels[:, 0], taught, value[:, 0], doubt, calibration)
        )
    weights = taught.credibility if variant.credible else np.ones(len(value))
    moved = _fine_tuned(answering, site[0], taught.labels, weights, seed)
    after = estimates_of(moved, torch.from_numpy(site[0])).value
    row["after"] = mean_square_error(after, site[1])
    if unsure.any():
        row["uncertain_before"] = mean_square_error(value[unsure], site[1][unsure])
        row["uncertain_pseudo_label"] = mean_square_error(taught.labels[unsure, None], site[1][unsure])
        row["uncertain_after"] = mean_square_error(after[unsure], site[1][unsure])
    return row


def _by(
    source_labels: NDArray[np.float64],
    taught: PseudoLabels,
    value: NDArray[np.float64],
    doubt: NDArray[np.float64],
    calibration: Calibration,
) -> NDArray[np.float64]:
    """Pseudo labels [N] by the labels of the source on the same grid, in the place of the site's map."""
    grid = taught.map.grid
    edges = grid.origins[0] + grid.width * np.arange(grid.counts[0] + 1)
    counts = np.histogram(source_labels, edges)[0]
    wrong = DensityMap(grid, counts / max(counts.sum(), 1))
    found, deviation = value.copy(), calibration.deviation(doubt, float(np.ptp(value)))
    for index in np.flatnonzero(~taught.confident):
        mass = mass_of(float(value[index]), float(deviation[index]), grid)
        product = wrong.shares[mass.window] * mass.joint
        if product.sum() > 0:
            found[index] = float((product * grid.centres(0)[mass.window[0]]).sum() / product.sum())
    return found


def _fine_tuned(
    answering: Answering,
    inputs: NDArray[np.float32],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    seed: int,
) -> Answering:
    members: list[SourceNetwork] = []
    for index, member in enumerate(members_of(answering.network)):
        moved, _ = fine_tune(member, torch.from_numpy(inputs), labels, weights, HOUSING.recipe, seed + index)
        assert isinstance(moved, SourceNetwork)
        members.append(moved)
    return Answering(members[0] if len(members) == 1 else Ensemble(members), answering.spec).eval()


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of figures that a seed may lack, over those that have them."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.mean(row[name] for row in rows if name in row) for name in names}
