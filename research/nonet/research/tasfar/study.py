"""The study: for each task and seed a source model, and its error at another site before and after each way
to adapt.

*Self-training* is the same fine-tuning with every pseudo label the model's own answer: what it gains is not
the density map's. *Guarded* is what the service would use: TASFAR by the task's recipe where the evidence is
for it, else the source model. Errors are on the rows that were adapted to and, apart, on rows held back from
everything.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from nonet.research.tasfar.all_tasks import STUDIED, find_task
from nonet.research.tasfar.baselines import BASELINES
from nonet.research.tasfar.networks import SourceNetwork
from nonet.research.tasfar.pseudo_labels import TooFewConfident, pseudo_labels
from nonet.research.tasfar.site import AdaptOptions, Method, adapt_regressor
from nonet.research.tasfar.source_training import train_source
from nonet.research.tasfar.tasks import Domains, RegressionTask, Split
from nonet.research.tasfar.uncertainty import Answering, estimates_of
from nonet.research.tasfar.version_files import Regressor, SourceFacts
from nonet.runtime.repository.manifest import Manifest

__all__ = ["SEEDS", "study"]

SEEDS: Final = 5
_NO_MANIFEST: Final = Manifest(files={"model.onnx": "0" * 64})
Say = Callable[[str], None]


def study(
    root: Path, seeds: int, say: Say, checkpoint: Path | None = None, only: Sequence[str] = ()
) -> dict[str, Any]:
    """Every figure of each task and seed, and their means.

    Args:
        checkpoint: file that finished seeds go to and come from.
        only: tasks; all by default.

    Raises FileNotFoundError where a task's data are absent.
    """
    done: dict[str, Any] = {}
    if checkpoint is not None and checkpoint.is_file():
        done = json.loads(checkpoint.read_text(encoding="utf-8"))
    facts: dict[str, Any] = {}
    for name in only or STUDIED:
        task, rows = find_task(name), list[dict[str, Any]]()
        domains: Domains | None = None
        for seed in range(seeds):
            key = f"{name} {seed}"
            if key not in done:
                domains = domains or task.load(root)
                done[key] = one_seed(task, domains, seed)
                if checkpoint is not None:
                    checkpoint.write_text(json.dumps(done), encoding="utf-8")
            rows.append(done[key])
            said = ", ".join(f"{each} {value:.4g}" for each, value in rows[-1]["unseen"].items())
            say(f"{name}, seed {seed}: {said}; accepted {rows[-1]['accepted']}")
        facts[name] = {"title": task.title, "metric": task.metric_name, "mean": _mean(rows), "each": rows}
    return facts


def one_seed(task: RegressionTask, domains: Domains, seed: int) -> dict[str, Any]:
    """Train, adapt in every way, and measure."""
    source, target = (Split.of(each, seed) for each in (domains.source, domains.target))
    answering, facts = train_source(task, source, seed)
    network = answering.network
    assert isinstance(network, SourceNetwork)
    site, unseen = target.open, target.held_back
    published = dataclasses.replace(facts, recipe=task.published or task.recipe)
    models: dict[str, Answering] = {"before": answering}
    ways: dict[str, tuple[SourceFacts, Method]] = {
        "self_training": (published, "self_training"),
        "tasfar_published": (published, "tasfar"),
        "tasfar": (facts, "tasfar"),
    }
    for way, (given, method) in ways.items():
        regressor = Regressor(answering, given, _NO_MANIFEST)
        found = adapt_regressor(regressor, site.inputs, AdaptOptions(method=method, seed=seed, force=True))
        models[way] = found.answering or answering
    models["guarded"] = models["tasfar"] if found.accepted else answering
    for name, adapt in BASELINES.items():
        models[name] = Answering(adapt(task, network, source.train, site, seed), answering.spec)
    values = {name: estimates_of(model, site.tensor()) for name, model in models.items()}
    space = facts.space
    predictions, doubt = values["before"].in_space(space)
    unsure = ~facts.calibration.confident(doubt)
    errors = {name: task.metric(each.value, site.labels) for name, each in values.items()}
    row: dict[str, Any] = {
        "seed": seed,
        "source_held_back": task.metric(
            estimates_of(answering, source.held_back.tensor()).value, source.held_back.labels
        ),
        "uncertain_share": float(unsure.mean()),
        "accepted": found.accepted,
        "reasons": list(found.reasons),
        "evidence": {key: value for key, value in found.evidence.items() if key != "map"},
        "adapted_on": errors,
        "unseen": {
            name: task.metric(estimates_of(model, unseen.tensor()).value, unseen.labels)
            for name, model in models.items()
        },
    }
    if unsure.any():
        row["uncertain"] = {
            name: task.metric(each.value[unsure], site.labels[unsure]) for name, each in values.items()
        }
        row["uncertain"]["pseudo_label"] = _pseudo_error(task, facts, predictions, doubt, unsure, site.labels)
    return row


def _pseudo_error(
    task: RegressionTask,
    facts: SourceFacts,
    predictions: NDArray[np.float64],
    doubt: NDArray[np.float64],
    unsure: NDArray[np.bool_],
    labels: NDArray[np.float64],
) -> float:
    """Of the pseudo labels of uncertain rows themselves."""
    shown = predictions if predictions.shape[1] > 1 else predictions[:, 0]
    try:
        taught = pseudo_labels(
            shown,
            doubt,
            facts.calibration,
            facts.recipe.width,
            local=facts.recipe.local,
            prior=facts.recipe.prior,
            source=facts.map,
            largest=max(float(np.ptp(predictions, axis=0).max()), 1e-12),
        )
    except TooFewConfident:
        return float("nan")
    found = torch.from_numpy(taught.labels.reshape(len(labels), -1))
    back = found.expm1() if facts.space == "log1p" else found
    return task.metric(back.numpy()[unsure], labels[unsure])


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds; of parts that a seed may lack, over those that have it."""
    means: dict[str, Any] = {
        name: statistics.mean(row[name] for row in rows) for name in ("source_held_back", "uncertain_share")
    }
    means["accepted"] = sum(row["accepted"] for row in rows)
    for part in ("adapted_on", "unseen", "uncertain"):
        having = [row[part] for row in rows if part in row]
        if having:
            means[part] = {name: statistics.mean(each[name] for each in having) for name in having[0]}
    return means
