"""The study's table: every arm with its own learning rate, over seeds and two sets of photographs, at short
and longer budgets and with fewer pictures; and the entanglement of the blocks while they learn."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonet.research.stablekd.blocks import Blocks
from nonet.research.stablekd.distillation import Distillation, Weights
from nonet.research.stablekd.entanglement import Batch, measure
from nonet.research.stablekd.pictures import DATA, Pictures
from nonet.research.stablekd.pilot import (
    ARMS,
    BATCH,
    Arm,
    accuracy,
    distil,
    residual_teacher,
    separable_student,
    train_teacher,
)
from nonet.research.stablekd.schedule import end_to_end

RATES = (0.1, 0.3, 1.0)
#: The seed of the runs that choose a rate; none of those that are reported.
CHOOSING_SEED = 1000
TEACHER_STEPS = 1000


@dataclass(frozen=True)
class Budget:
    """A share of the pictures of training, steps, layers of a student's block; which arms are measured there
    (all, if none are named)."""

    share: float
    steps: int
    layers: int = 3
    arms: tuple[str, ...] = ()


BUDGETS = {
    "all pictures, 120 steps": Budget(1.0, 120),
    "40 % of them, 120 steps": Budget(0.4, 120),
    "all pictures, 240 steps": Budget(1.0, 240, arms=("plain KD", "StableKD, halving")),
    "all pictures, 360 steps": Budget(1.0, 360),
    "one layer a block, 120 steps": Budget(1.0, 120, 1),
}
#: The budgets of each set; the second set is there to see whether the first one's order holds.
BUDGETS_OF = {"CIFAR-10": tuple(BUDGETS), "Tiny ImageNet": tuple(BUDGETS)[:2]}
TUNED_AT = "all pictures, 120 steps"
#: Pictures of which the shares are taken, as the specification's pilot has them.
PICTURES = 3000
MEASURED_AT = (5, 30)
Say = Callable[[str], None]


def run_study(root: Path, seeds: int, say: Say) -> dict[str, Any]:
    """All figures of the table, by data set. Rates are chosen on the validation part, with another seed."""
    return {"sets": {name: _run_set(name, read(root), seeds, say) for name, read in DATA.items()}}


def _run_set(name: str, parts: dict[str, Pictures], seeds: int, say: Say) -> dict[str, Any]:
    learnt = parts["train"]
    classes = int(learnt.labels.max()) + 1
    teacher = train_teacher(learnt, TEACHER_STEPS, 0)
    shown = learnt.first(min(1.0, PICTURES / len(learnt.labels)))
    facts: dict[str, Any] = {
        "classes": classes,
        "teacher": {
            "accuracy": round(accuracy(teacher, parts["test"]), 2),
            "parameters": sum(each.numel() for each in residual_teacher(classes).parameters()),
            "steps": TEACHER_STEPS,
            "pictures": len(learnt.labels),
        },
        "student_parameters": sum(each.numel() for each in separable_student(3, classes).parameters()),
        "measured_on": len(parts["test"].labels),
        "budgets": {},
    }
    say(f"{name}: teacher {facts['teacher']['accuracy']} %")
    rates = {arm.name: _best_rate(arm, teacher, shown, parts["val"], say) for arm in ARMS}
    facts["rates"] = rates
    for label in BUDGETS_OF[name]:
        budget = BUDGETS[label]
        pictures = shown.first(budget.share)
        rows: dict[str, Any] = {}
        for arm in ARMS:
            if budget.arms and arm.name not in budget.arms:
                continue
            found = [
                accuracy(_distilled(arm, teacher, pictures, budget, rates[arm.name], seed), parts["test"])
                for seed in range(seeds)
            ]
            rows[arm.name] = {
                "mean": round(statistics.mean(found), 2),
                "deviation": round(statistics.stdev(found), 2) if seeds > 1 else None,
                "each": [round(each, 2) for each in found],
            }
            say(f"{name}, {label}: {arm.name} {rows[arm.name]['mean']} %")
        facts["budgets"][label] = {
            "pictures": len(pictures.labels),
            "steps": budget.steps,
            "layers": budget.layers,
            "arms": rows,
        }
    facts["entanglement"] = [
        row
        for losses, weights in (("all", Weights()), ("features alone", Weights(alpha=0.0)))
        for row in _entanglement(Arm(losses, end_to_end(4), weights), teacher, shown)
    ]
    return facts


def _best_rate(arm: Arm, teacher: Blocks, pictures: Pictures, val: Pictures, say: Say) -> float:
    budget = BUDGETS[TUNED_AT]
    scores = {
        rate: accuracy(_distilled(arm, teacher, pictures, budget, rate, CHOOSING_SEED), val) for rate in RATES
    }
    best = max(scores, key=lambda rate: scores[rate])
    say(f"{arm.name}: rate {best} of { ({rate: round(value, 1) for rate, value in scores.items()}) }")
    return best


def _distilled(
    arm: Arm, teacher: Blocks, pictures: Pictures, budget: Budget, rate: float, seed: int
) -> Blocks:
    return distil(arm, teacher, pictures, budget.steps, rate, seed, layers=budget.layers)


def _entanglement(arm: Arm, teacher: Blocks, pictures: Pictures) -> list[dict[str, Any]]:
    """Noise and turn of each block's gradient, decomposed and end to end, at the same states of a run."""
    rows: list[dict[str, Any]] = []

    def watched(step: int, distillation: Distillation) -> None:
        if step not in MEASURED_AT:
            return
        batches: list[Batch] = [
            (distillation.lesson(images), labels)
            for images, labels in zip(
                pictures.images[: 16 * BATCH].split(BATCH),
                pictures.labels[: 16 * BATCH].split(BATCH),
                strict=True,
            )
        ]
        for name, partition in (("end to end", (4,)), ("decomposed", (1, 1, 1, 1))):
            found = measure(distillation, batches, partition, 0.05)
            rows.append(
                {
                    "losses": arm.name,
                    "step": step,
                    "partition": name,
                    "noise": [round(each, 3) for each in found.noise],
                    "turn": [round(each, 4) for each in found.turn],
                }
            )

    distil(arm, teacher, pictures, max(MEASURED_AT) + 1, 0.05, 0, watched=watched)
    return rows
