"""`nonet train tasfar`: the source model of a task; `nonet evaluate tasfar`: what adapting it to another site
is worth."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

ABLATIONS: Final = "ablations"
"""The variant that measures the parts of the recipe and not the tasks."""
_PARTS: Final = {
    "unseen": "rows of the site held back from everything",
    "adapted_on": "rows of the site that were adapted to",
    "uncertain": "those of them that the source model was not sure of",
}


def train(options: TrainOptions) -> None:
    """Train and publish the source model of a task. Raises InvalidArgument where the data are absent."""
    import torch

    from nonet.research.tasfar.training_command import train_and_publish

    torch.set_num_threads(options.threads)
    try:
        train_and_publish(options, options.data or data_root(), lambda line: print(line, flush=True))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None


def evaluate(options: EvaluateOptions) -> None:
    """Run the study and print its tables; with an output, finished seeds are kept beside it and a further run
    goes on with them. Raises InvalidArgument where the data are absent."""
    import torch

    from nonet.research.tasfar.study import SEEDS, study

    torch.set_num_threads(1)  # for networks this small, threads wait more than they work
    console = Console(width=None if os.isatty(1) else 160)
    seeds = SEEDS if options.seeds is None else options.seeds
    if options.variant == ABLATIONS:
        _evaluate_ablations(options, seeds, console)
        return
    checkpoint = None if options.output is None else options.output.with_suffix(".partial.json")
    only = () if options.variant is None else (options.variant,)
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        facts = study(data_root(), seeds, lambda line: print(line, flush=True), checkpoint, only)
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    for found in facts.values():
        console.print(_table(found))
    if options.output is not None and checkpoint is not None:
        chosen = f" --variant {options.variant}" if options.variant else ""
        stated = _stated(f"nonet evaluate tasfar --seeds {seeds}{chosen}", "tasks", facts)
        options.output.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
        console.print(f"results in {options.output}")


def _evaluate_ablations(options: EvaluateOptions, seeds: int, console: Console) -> None:
    from nonet.research.tasfar.ablations import ablations

    try:
        found = ablations(data_root(), seeds, lambda line: print(line, flush=True))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    view = Table(title=f"housing, means over {seeds} seeds", title_justify="left")
    figures = list(next(iter(found.values()))["mean"])
    for column in ("variant", *figures):
        view.add_column(column.replace("_", " "))
    for name, facts in found.items():
        view.add_row(name, *(f"{facts['mean'].get(each, float('nan')):.4g}" for each in figures))
    console.print(view)
    if options.output is not None:
        stated = _stated(f"nonet evaluate tasfar --variant {ABLATIONS} --seeds {seeds}", "variants", found)
        options.output.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
        console.print(f"results in {options.output}")


def _stated(command: str, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"command": command, "date": today, name: facts}


def _table(found: Mapping[str, Any]) -> Table:
    """One row for each way, one column for each part of the site; means over the seeds."""
    mean, seeds = found["mean"], len(found["each"])
    title = (
        f"{found['title']}: {found['metric']}; {mean['uncertain_share']:.1%} uncertain; "
        f"accepted for {mean['accepted']} of {seeds} seeds"
    )
    view = Table(title=title, title_justify="left")
    view.add_column("means of the seeds")
    for meaning in _PARTS.values():
        view.add_column(meaning, justify="right")
    for name in mean.get("uncertain", mean["unseen"]):
        view.add_row(name, *(_shown(mean.get(part, {}), name) for part in _PARTS))
    return view


def _shown(part: Mapping[str, float], name: str) -> str:
    if name not in part:
        return "-"
    change = part[name] / part["before"] - 1
    return f"{part[name]:.4g}" + ("" if name == "before" else f" ({change:+.1%})")
