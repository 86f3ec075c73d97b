"""`nonet train tasfar`: the source model of a task, measured once on what was held back, and published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonet.research.systems import TrainOptions
from nonet.research.tasfar.all_tasks import find_task
from nonet.research.tasfar.release import Release, publish_regressor
from nonet.research.tasfar.source_training import train_source
from nonet.research.tasfar.tasks import Domain, RegressionTask, Split
from nonet.research.tasfar.uncertainty import Answering, estimates_of

__all__ = ["linear_baseline", "train_and_publish"]


def train_and_publish(options: TrainOptions, root: Path, say: Callable[[str], None]) -> None:
    """Train on the source of a task, and publish the version unless that is not wanted. Raises
    FileNotFoundError where the data are absent, InvalidArgument for an unknown task."""
    task = find_task(options.preset)
    if options.preset == "tiny":
        task = dataclasses.replace(task, training=dataclasses.replace(task.training, epochs=2))
    domains = task.load(root)
    source, target = (Split.of(each, options.seed) for each in (domains.source, domains.target))
    answering, facts = train_source(task, source, options.seed, minutes=options.minutes, say=say)
    quality = measured(task, answering, source, target.held_back)
    say(", ".join(f"{name} {value}" for name, value in quality.items()))
    if not options.publish:
        return
    name = task.name if options.preset != "tiny" else f"{task.name}_tiny"
    command = f"nonet train tasfar --preset {options.preset} --seed {options.seed}"
    if options.minutes is not None:
        command += f" --minutes {options.minutes:g}"
    release = Release(
        outputs=task.outputs,
        units=task.units,
        features=task.features,
        command=command,
        data=task.data,
        licence=task.licence,
        credit=task.credit,
        family=task.name,
        quality=quality,
        facts={"task": task.title},
    )
    version = publish_regressor(options.repository, name, answering, facts, release, replace=True)
    say(f"published as {version.model}, version {version.version}")


def measured(
    task: RegressionTask, answering: Answering, source: Split, site: Domain
) -> dict[str, float | int | str]:
    """The error on rows held back where the model learnt and at the other site, beside a linear regression
    and the mean of the training labels."""
    found: dict[str, Any] = {"metric": task.metric_name}
    for place, data in (("source", source.held_back), ("other site", site)):
        error = task.metric(estimates_of(answering, data.tensor()).value, data.labels)
        found[f"{place} error"] = round(error, 4)
        found[f"{place} rows"] = len(data)
    held = source.held_back
    mean = np.broadcast_to(source.train.labels.mean(0), held.labels.shape)
    found["source error of the mean"] = round(task.metric(mean, held.labels), 4)
    linear = linear_baseline(source.train, held)
    found["source error of a linear regression"] = round(task.metric(linear, held.labels), 4)
    found["dataset"] = f"{task.data[0].name}, a tenth held back from training and choosing"
    return found


def linear_baseline(trained: Domain, asked: Domain) -> NDArray[np.float64]:
    """Predictions [N, D] of a linear regression on the inputs' means over time or picture."""

    def table(data: Domain) -> NDArray[np.float64]:
        values = data.inputs.reshape(len(data), data.inputs.shape[1], -1).mean(2).astype(np.float64)
        return np.concatenate([values, np.ones((len(data), 1))], 1)

    weights, *_ = np.linalg.lstsq(table(trained), trained.labels, rcond=None)
    return np.asarray(table(asked) @ weights)
