"""A regression that is learnt in a second, and a site of similar labels and noisy inputs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nonet.research.tasfar.adaptation import Recipe
from nonet.research.tasfar.networks import NetworkSpec
from nonet.research.tasfar.release import Release, publish_regressor
from nonet.research.tasfar.source_training import train_source
from nonet.research.tasfar.tasks import (
    Domain,
    Domains,
    RegressionTask,
    SourceTraining,
    Split,
    mean_square_error,
)
from nonet.research.tasfar.uncertainty import Answering, UncertaintySpec
from nonet.research.tasfar.version_files import SourceFacts
from nonet.runtime.repository.manifest import DataSource

RELEASE = Release(
    outputs=("height",),
    units=("m",),
    features=("a", "b", "c", "d"),
    command="a test",
    data=(DataSource(name="made up"),),
)


def rows(count: int, seed: int, middle: float = 0.0, width: float = 1.0) -> NDArray[np.float32]:
    """Inputs [count, 4]."""
    noise = np.random.default_rng(seed).standard_normal((count, 4))
    return (middle + width * noise).astype(np.float32)


def labels_of(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """[N, 1]."""
    bent = inputs[:, 0] + 0.5 * np.tanh(inputs[:, 1]) + 0.2 * inputs[:, 2] ** 2
    noise = np.random.default_rng(len(inputs)).normal(0, 0.15, len(inputs))
    return np.asarray((bent + noise)[:, None], dtype=np.float64)


def load(root: Path) -> Domains:
    """A thousand rows of both sides."""
    source = rows(1200, 1)
    target, labels = site(600)
    return Domains(Domain(source, labels_of(source), np.arange(1200)), Domain(target, labels, np.arange(600)))


def site(count: int, seed: int = 2) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Inputs and labels of a site whose labels lie close together, and where a sensor fails a fifth of the
    time: what TASFAR is for."""
    rng = np.random.default_rng(seed)
    inputs = rows(count, seed, 1.0, 0.3)
    labels = labels_of(inputs)
    failing = rng.random(count) < 0.2
    inputs[failing] += rng.normal(0, 2.0, (int(failing.sum()), 4)).astype(np.float32)
    return inputs, labels


TASK = RegressionTask(
    name="synthetic",
    title="a bent plane",
    load=load,
    spec=NetworkSpec("mlp", (4,), widths=(32, 32), tail=(16,), clip=6.0),
    training=SourceTraining(epochs=15, batch=64, rate=3e-3),
    recipe=Recipe(width=0.2, rate=5e-4, epochs=5, batch=64),
    metric=mean_square_error,
    metric_name="mean square error",
    outputs=("height",),
    units=("m",),
    features=("a", "b", "c", "d"),
    data=RELEASE.data,
    licence="none",
)


def trained(
    spec: NetworkSpec = TASK.spec, uncertainty: UncertaintySpec | None = None
) -> tuple[Answering, SourceFacts]:
    """A source model and its numbers."""
    return train_source(TASK, Split.of(load(Path()).source, 0), 0, spec=spec, uncertainty=uncertainty)


def published(repository: Path) -> Path:
    """The folder of a published version of it."""
    answering, facts = trained()
    return publish_regressor(repository, "bent", answering, facts, RELEASE).path


def kind(name: str) -> tuple[NetworkSpec, UncertaintySpec]:
    """The network and the uncertainty of a kind."""
    changes = {"mc_dropout": {}, "ensemble": {"members": 3}, "learned_variance": {"learned_variance": True}}
    return dataclasses.replace(TASK.spec, **changes[name]), UncertaintySpec(name)  # type: ignore[arg-type]
