"""The study's table: every arm with its own learning rate, over seeds, at short and longer budgets and with
fewer pictures; and the entanglement of the blocks while they learn."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nonet.research.stablekd.distillation import Distillation
from nonet.research.stablekd.entanglement import Batch, measure
from nonet.research.stablekd.pilot import (
    ARMS,
    BATCH,
    Arm,
    Pictures,
    accuracy,
    distil,
    load_pictures,
    residual_teacher,
    separable_student,
    train_teacher,
)

RATES = (0.03, 0.1, 0.3)
TEACHER_STEPS = 1500
#: Name of a budget: share of the pictures of training, steps, layers of a student's block.
BUDGETS = {
    "all pictures, short": (0.3, 120, 3),
    "40 % of them, short": (0.12, 120, 3),
    "all pictures, three times as long": (0.3, 360, 3),
    "one layer a block, short": (0.3, 120, 1),
}
MEASURED_AT = (5, 30)
Say = Callable[[str], None]


def run_study(root: Path, seeds: int, say: Say) -> dict[str, Any]:
    """All figures of the table. Rates are chosen on the validation part with a seed of its own."""
    parts = load_pictures(root)
    teacher = train_teacher(parts["train"], TEACHER_STEPS, 0)
    facts: dict[str, Any] = {
        "teacher": {
            "accuracy": round(accuracy(teacher, parts["test"]), 2),
            "parameters": sum(each.numel() for each in residual_teacher().parameters()),
            "steps": TEACHER_STEPS,
            "pictures": len(parts["train"].labels),
        },
        "student_parameters": sum(each.numel() for each in separable_student().parameters()),
        "budgets": {},
    }
    say(f"teacher {facts['teacher']['accuracy']} %")
    rates = {arm.name: _best_rate(arm, teacher, parts, say) for arm in ARMS}
    facts["rates"] = rates
    for name, (share, steps, layers) in BUDGETS.items():
        pictures = parts["train"].first(share)
        rows: dict[str, Any] = {}
        for arm in ARMS:
            found = [
                accuracy(
                    distil(arm, teacher, pictures, steps, rates[arm.name], seed, layers=layers), parts["test"]
                )
                for seed in range(seeds)
            ]
            rows[arm.name] = {
                "mean": round(statistics.mean(found), 2),
                "deviation": round(statistics.stdev(found), 2) if seeds > 1 else None,
                "each": [round(each, 2) for each in found],
            }
            say(f"{name}: {arm.name} {rows[arm.name]['mean']} %")
        facts["budgets"][name] = {
            "pictures": len(pictures.labels),
            "steps": steps,
            "layers": layers,
            "arms": rows,
        }
    facts["entanglement"] = _entanglement(teacher, parts["train"].first(0.3))
    return facts


def _best_rate(arm: Arm, teacher: Any, parts: dict[str, Pictures], say: Say) -> float:
    share, steps, layers = BUDGETS["all pictures, short"]
    pictures = parts["train"].first(share)
    scores = {
        rate: accuracy(distil(arm, teacher, pictures, steps, rate, 1000, layers=layers), parts["val"])
        for rate in RATES
    }
    best = max(scores, key=lambda rate: scores[rate])
    say(f"{arm.name}: rate {best} of { ({rate: round(value, 1) for rate, value in scores.items()}) }")
    return best


def _entanglement(teacher: Any, pictures: Pictures) -> list[dict[str, Any]]:
    """Noise and turn of each block's gradient, decomposed and end to end, at the same states of a run."""
    rows: list[dict[str, Any]] = []
    arm = ARMS[2]

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
                    "step": step,
                    "partition": name,
                    "noise": [round(each, 3) for each in found.noise],
                    "turn": [round(each, 4) for each in found.turn],
                }
            )

    distil(arm, teacher, pictures, max(MEASURED_AT) + 1, 0.05, 0, watched=watched)
    return rows
