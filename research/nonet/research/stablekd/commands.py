"""`nonet train stablekd` and `nonet evaluate stablekd`: a student of the grocery family, a small study."""

from __future__ import annotations

import datetime
import json
import os
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

SEEDS = 3
PAIR_MINUTES = 30.0


def train(options: TrainOptions) -> None:
    """Distil a student and publish it: of the grocery family where it is better than the published one, or of
    any teacher. Raises InvalidArgument where data are absent, NotFound where the teacher is.
    """
    if options.teacher and options.student:
        _train_pair(options, options.teacher, options.student)
        return
    from nonet.research.stablekd.grocery import train_student

    try:
        print(train_student(options, lambda line: print(json.dumps(line), flush=True)))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None


def _train_pair(options: TrainOptions, teacher: str, student: str) -> None:
    from nonet.research.fasternet.device_training import stop_on_signals
    from nonet.research.stablekd.pair import Pair, distil_pair
    from nonet.runtime.repository.manifest import DataSource

    if options.data is None:
        raise InvalidArgument("say where the pictures are: --data FOLDER, a zip or a tar", param="data")
    pair = Pair(
        repository=options.repository,
        teacher=teacher,
        student=student,
        pictures=options.data,
        minutes=PAIR_MINUTES if options.minutes is None else options.minutes,
        seed=options.seed,
        threads=options.threads,
        device=options.device,
        data=(DataSource(name=options.data.name),),
        command=f"nonet train stablekd --teacher {teacher} --student {student} --data {options.data.name} "
        f"--seed {options.seed}",
        publish=options.publish,
    )
    told = 0.0

    def report(share: float, phase: str) -> None:
        nonlocal told
        if time.monotonic() - told >= 5:
            told = time.monotonic()
            print(json.dumps({"share": round(share, 3), "phase": phase}), flush=True)

    with stop_on_signals() as stopping:
        outcome = distil_pair(
            pair,
            report,
            checkpoint=options.runs / f"{teacher}_{student}.pt",
            resume=options.resume,
            stopping=stopping,
        )
    print(json.dumps({"model": outcome.model, "version": outcome.version, **outcome.quality}))
    for note in outcome.notes:
        print(note)


def evaluate(options: EvaluateOptions) -> None:
    """Run the study (an hour of a core) and print its table. Raises InvalidArgument where data are absent."""
    from nonet.research.stablekd.study import run_study

    console = Console(width=None if os.isatty(1) else 140)
    seeds = SEEDS if options.seeds is None else options.seeds
    try:
        facts = run_study(data_root(), seeds, lambda line: print(line, flush=True))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    for data, found in facts["sets"].items():
        for name, budget in found["budgets"].items():
            console.print(_table(f"{data}, {name}", budget))
    if options.output is not None:
        stated = {
            "command": f"nonet evaluate stablekd --seeds {seeds}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **facts,
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
        console.print(f"results in {options.output}")


def _table(name: str, budget: dict[str, Any]) -> Table:
    view = Table(
        title=f"{name}: {budget['pictures']} pictures, {budget['steps']} steps", title_justify="left"
    )
    view.add_column("arm")
    view.add_column("accuracy %", justify="right")
    for arm, row in budget["arms"].items():
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.1f}"
        view.add_row(arm, f"{row['mean']:.1f}{spread}")
    return view
