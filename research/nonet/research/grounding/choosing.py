"""What is set after training, on expressions that no figure is reported on: how sure the matcher may be (its
temperature), from which score a detector's boxes are proposed, and whether it is worth publishing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nonet.research.grounding.lessons import Lessons, tensors_of
from nonet.research.grounding.network import ServingForm
from nonet.research.grounding.photographs import Photograph, chosen_by
from nonet.research.grounding.proposals import Find, propose, published_detector
from nonet.research.grounding.scenes import Example, Floats, Scene
from nonet.research.grounding.scoring import (
    Choose,
    Forward,
    accuracy_of,
    baselines,
    by_matcher,
    measured,
)
from nonet.research.grounding.training import Trained

__all__ = ["Choice", "choose", "forward_of", "from_score"]

_LEAST = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25)
_TEMPERATURES = np.geomspace(0.6, 2.5, 25)
_ROWS = 1500  # examples that the temperature is fitted on
_CALIBRATED = 32  # regions of each; a lesson has no more than 28


@dataclass(frozen=True)
class Choice:
    """What was found on the expressions to choose by; figures are accuracies at IoU above 0.5, 0..1."""

    temperature: float
    nothing_error: float
    text_accuracy: float
    least: float
    accuracy: float
    largest_box: float
    count: int


def forward_of(form: ServingForm) -> Forward:
    """Shares (B, R + 1) by PyTorch."""

    def forward(inputs: tuple[np.ndarray, ...]) -> Floats:
        with torch.no_grad():
            shares, nothing = form(*(torch.from_numpy(each) for each in inputs))
        joined: Floats = torch.cat((shares, nothing[:, None]), 1).numpy()
        return joined

    return forward


def choose(trained: Trained, root: Path, repository: Path) -> Choice:
    """All choices for a trained matcher with the published detector. Raises FileNotFoundError where the data
    or the detector are absent.
    """
    temperature, error, text_accuracy = calibrated(trained)
    photographs = chosen_by(root)
    find = published_detector(repository)
    scenes = proposals_of(photographs, find)
    _add_texts(trained, photographs)
    matcher = by_matcher(
        forward_of(ServingForm(trained.matcher, temperature)), trained.states, trained.names, None
    )
    known = baselines(trained.states, trained.names, trained.material.classes)
    least = max(_LEAST, key=lambda score: _accuracy(scenes, score, matcher))
    cut = [(from_score(scene, least), examples) for scene, examples in scenes]
    found = accuracy_of(measured(cut, matcher))
    largest = max(_accuracy(scenes, score, known["largest box"]) for score in _LEAST)
    return Choice(
        round(temperature, 3),
        round(error, 4),
        round(text_accuracy, 4),
        least,
        float(found["accuracy"]),
        largest,
        int(found["count"]),
    )


def proposals_of(
    photographs: Sequence[Photograph], find: Find, best: bool = False
) -> list[tuple[Scene, list[Example]]]:
    """Every photograph's regions from the lowest score that is tried on, and its examples."""
    return [(propose(each.picture, each.name, find, _LEAST[0], best), each.examples) for each in photographs]


def from_score(scene: Scene, least: float) -> Scene:
    """The regions with at least this score."""
    kept = scene.scores >= least
    looks = None if scene.looks is None else scene.looks[kept]
    return Scene(
        scene.picture, scene.boxes[kept], scene.names[kept], scene.scores[kept], looks, scene.aspect, False
    )


@torch.no_grad()
def calibrated(trained: Trained) -> tuple[float, float, float]:
    """(Temperature of least cross-entropy, expected error of `nothing` there, accuracy) on human expressions
    to choose by, with a detector's faults and with expressions of other pictures as in training.
    """
    examples = trained.material.choose[:_ROWS]
    lessons = Lessons(
        examples, trained.states, trained.names, trained.material.classes, trained.material.pool
    )
    draw = np.random.default_rng(0)
    logits, wanted = [], []
    for start in range(0, len(examples), 64):
        seen = [lessons.seen(index, draw) for index in range(start, min(start + 64, len(examples)))]
        lesson = tensors_of(seen, trained.states, trained.names, _CALIBRATED)
        logits.append(trained.matcher(*lesson.inputs))
        wanted.append(lesson.shares)
    all_logits, all_wanted = torch.cat(logits), torch.cat(wanted)

    def loss(temperature: float) -> float:
        shares = (all_logits / temperature).log_softmax(-1).clamp(min=-30)
        return float(-(all_wanted * shares).sum(-1).mean())

    temperature = float(min(_TEMPERATURES, key=loss))
    nothing = (all_logits / temperature).softmax(-1)[:, -1].numpy()
    empty = all_wanted[:, -1].numpy() > 0.5
    best = all_logits.argmax(1)
    hits = all_wanted[torch.arange(len(best)), best] > 0
    return temperature, expected_error(nothing, empty), float(hits.float().mean())


def expected_error(probability: np.ndarray, happened: np.ndarray) -> float:
    """Expected calibration error (C. Guo et al., arXiv 1706.04599) over ten bins of equal width."""
    bins = np.minimum((probability * 10).astype(int), 9)
    error = 0.0
    for index in range(10):
        inside = bins == index
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - happened[inside].mean())
    return float(error)


def _accuracy(scenes: Sequence[tuple[Scene, Sequence[Example]]], least: float, how: Choose) -> float:
    cut = [(from_score(scene, least), examples) for scene, examples in scenes]
    return float(accuracy_of(measured(cut, how))["accuracy"])


def _add_texts(trained: Trained, photographs: Sequence[Photograph]) -> None:
    trained.states.add(
        [example.expression for each in photographs for example in each.examples], trained.encoder
    )
