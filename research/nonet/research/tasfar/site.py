"""Adapting a published version to a site: its rows in, the adapted version's files and label-free evidence
out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nonet.research.tasfar.adaptation import fine_tune
from nonet.research.tasfar.density import density_map, grid_for
from nonet.research.tasfar.evidence import Bounds, Moved, before_training, map_facts, measure
from nonet.research.tasfar.networks import Ensemble, SourceNetwork, members_of
from nonet.research.tasfar.pseudo_labels import (
    FEWEST_CONFIDENT,
    PseudoLabels,
    TooFewConfident,
    pseudo_labels,
)
from nonet.research.tasfar.release import files_of
from nonet.research.tasfar.uncertainty import Answering, Estimates, estimates_of
from nonet.research.tasfar.version_files import Regressor, SourceFacts, read_regressor
from nonet.runtime.errors import InvalidArgument

__all__ = ["AdaptOptions", "Adaptation", "adapt_regressor", "adapt_version", "checked_rows"]

Method = Literal["tasfar", "self_training"]

_SHOWN_CONFIDENT = 4096
"""Confident rows at most, evenly chosen, of which a map is made for people to watch."""


@dataclass(frozen=True)
class AdaptOptions:
    """How a site is adapted to.

    Args:
        method: ``tasfar``, or its control: training on the model's own answers.
        seed: of every random choice.
        held_back: share of the rows that evidence is measured on and nothing is trained on.
        epochs: at most; None leaves that to the version.
        force: train although what is known before is against it; it is declined all the same.
        bounds: what makes it decline.
    """

    method: Method = "tasfar"
    seed: int = 0
    held_back: float = 0.2
    epochs: int | None = None
    force: bool = False
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True)
class Adaptation:
    """What came of it.

    Args:
        accepted: whether the evidence is for using it.
        reasons: why not, for people; empty when it is accepted.
        evidence: figures for JSON: rows, shifts, likelihoods, changes, losses and the map.
        files: of the adapted version by name, whether accepted or not; none where training did not start.
        answering: the adapted network, None likewise.
    """

    accepted: bool
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    answering: Answering | None = field(default=None, repr=False)


Report = Callable[[str, float], None]
"""Told what is going on and which share 0..1 is done."""
Watch = Callable[[Mapping[str, Any]], None]


def adapt_version(
    version: Path,
    rows: ArrayLike,
    options: AdaptOptions = AdaptOptions(),
    report: Report = lambda what, share: None,
    *,
    watch: Watch = lambda found: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Adaptation:
    """Adapt a version's network to a site.

    Args:
        version: its folder.
        rows: [N, ...] in the units and order of the version's input.
        watch: told how many rows were looked at, of how many the model is sure, and the map of those, as it
            forms.
        stopping: asked before each epoch.

    Raises InvalidArgument for rows of another shape or that are not finite, ModelRefused for a version that
    cannot be adapted.
    """
    regressor = read_regressor(version)
    inputs = checked_rows(rows, regressor)
    found = adapt_regressor(regressor, inputs, options, report, watch=watch, stopping=stopping)
    if found.answering is None:
        return found
    report("writing the adapted version", 0.9)
    return dataclasses.replace(found, files=files_of(found.answering, regressor.facts))


def checked_rows(rows: ArrayLike, regressor: Regressor) -> NDArray[np.float32]:
    """FP32 [N, ...]. Raises InvalidArgument for what is no table of the version's inputs."""
    wanted = regressor.answering.network.spec.inputs
    try:
        found = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError):
        raise InvalidArgument("rows must all be numbers, and of one length", param="rows") from None
    if found.ndim != 1 + len(wanted) or found.shape[1:] != wanted:
        raise InvalidArgument(
            f"rows have the shape {list(found.shape)}; the model takes [N, {', '.join(map(str, wanted))}]",
            param="rows",
        )
    bad = ~np.isfinite(found).all(tuple(range(1, found.ndim)))
    if bad.any():
        raise InvalidArgument(f"row {int(np.argmax(bad))} has a value that is not finite", param="rows")
    return found


def adapt_regressor(
    regressor: Regressor,
    inputs: NDArray[np.float32],
    options: AdaptOptions = AdaptOptions(),
    report: Report = lambda what, share: None,
    *,
    watch: Watch = lambda found: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Adaptation:
    """As `adapt_version`, of a regressor in memory; makes no files."""
    facts = regressor.facts
    report("predicting", 0.0)
    if not len(inputs):
        return Adaptation(False, ("there are no rows",), {"rows": 0})
    tensor = torch.from_numpy(inputs)
    before = estimates_of(
        regressor.answering, tensor, lambda first: watch(_so_far(first, facts)) if len(first.value) else None
    )
    found, doubt = before.in_space(facts.space)
    if not np.isfinite(found).all() or not np.isfinite(doubt).all():
        return Adaptation(False, ("the model's predictions for these rows are not finite",), {})
    evidence, reasons = before_training(inputs, found, doubt, facts, options.bounds)
    if reasons and not options.force:
        return Adaptation(False, tuple(reasons), evidence)
    held = np.zeros(len(inputs), dtype=bool)
    count = max(1, round(options.held_back * len(inputs)))
    held[np.random.default_rng(options.seed).permutation(len(inputs))[:count]] = True
    try:
        taught = pseudo_labels(
            found[~held] if found.shape[1] > 1 else found[~held, 0],
            doubt[~held],
            facts.calibration,
            facts.recipe.width,
            local=facts.recipe.local,
            prior=facts.recipe.prior,
            source=facts.map,
            largest=_largest_deviation(found),
        )
    except TooFewConfident as error:
        return Adaptation(False, (*reasons, str(error)), evidence)
    evidence["map"] = map_facts(taught.map)
    watch({"rows": len(found), "confident": evidence.get("confident"), "map": evidence["map"]})
    adapted, losses = _trained(regressor, tensor[~held], taught, found[~held], options, report, stopping)
    after = estimates_of(adapted, tensor[held])
    moved = Moved(found[held], after.in_space(facts.space)[0], doubt[held])
    figures, against = measure(moved, taught, facts, options.bounds)
    reasons += against
    evidence.update(figures, losses=[round(each, 6) for each in losses])
    evidence.update(_shown(before.rows(held), after))
    if not losses:
        reasons.append("training was stopped before it began")
    return Adaptation(not reasons, tuple(reasons), evidence, answering=adapted)


def _trained(
    regressor: Regressor,
    inputs: torch.Tensor,
    taught: PseudoLabels,
    own: NDArray[np.float64],
    options: AdaptOptions,
    report: Report,
    stopping: Callable[[], bool],
) -> tuple[Answering, list[float]]:
    recipe = regressor.facts.recipe
    if options.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=options.epochs)
    labels, weights = taught.labels, taught.credibility
    if options.method == "self_training":
        labels, weights = own, taught.own_credibility
    network = copy.deepcopy(regressor.answering.network)
    members, losses = members_of(network), list[float]()
    trained: list[SourceNetwork] = []
    for index, member in enumerate(members):

        def told(epoch: int, done: int = index) -> None:
            share = (done + epoch / recipe.epochs) / len(members)
            report(f"training, epoch {epoch} of at most {recipe.epochs}", 0.1 + 0.8 * share)

        moved, found = fine_tune(
            member, inputs, labels, weights, recipe, options.seed + index, stopping=stopping, progress=told
        )
        assert isinstance(moved, SourceNetwork)
        trained.append(moved)
        losses.extend(found)
    whole = trained[0] if len(trained) == 1 else Ensemble(trained)
    return Answering(whole, regressor.answering.spec).eval(), losses


def _so_far(first: Estimates, facts: SourceFacts) -> dict[str, Any]:
    """What the first rows of a site say: the map as soon as enough of them are confident."""
    found, doubt = first.in_space(facts.space)
    sure = facts.calibration.confident(doubt) & np.isfinite(found).all(1)
    told: dict[str, Any] = {"rows": len(found), "confident": int(sure.sum())}
    if told["confident"] >= FEWEST_CONFIDENT:
        shown = np.flatnonzero(sure)[:: -(-told["confident"] // _SHOWN_CONFIDENT)]
        deviation = facts.calibration.deviation(doubt[shown], _largest_deviation(found[shown]))
        grid = grid_for(found[shown], deviation, facts.recipe.width)
        told["map"] = map_facts(density_map(found[shown], deviation, grid))
    return told


def _largest_deviation(predictions: NDArray[np.float64]) -> float:
    """A deviation as large as the predictions' range says nothing more (specification, section 11)."""
    return max(float(np.ptp(predictions, axis=0).max()), 1e-12)


def _shown(before: Estimates, after: Estimates) -> dict[str, Any]:
    """Means and middle deviations of the held-back rows, in the labels' units."""
    return {
        name: {
            "mean": [round(float(each), 6) for each in found.value.mean(0)],
            "std": [round(float(each), 6) for each in np.median(found.std, axis=0)],
        }
        for name, found in (("before", before), ("after", after))
    }
