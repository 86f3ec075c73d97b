"""`nonet evaluate tasfar`: the study on housing, beside self-training and the published figures."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

_COLUMNS = {
    "uncertain_share": "uncertain",
    "before": "before",
    "self_training": "self-training",
    "after": "TASFAR",
    "uncertain_before": "uncertain rows before",
    "uncertain_self_training": "self-training",
    "uncertain_pseudo_label": "pseudo label",
    "uncertain_after": "TASFAR",
}


def train(options: TrainOptions) -> None:
    """Raises InvalidArgument: a model is adapted where it is used, and nothing is trained beforehand."""
    raise InvalidArgument("there is nothing to train: TASFAR adapts a model to a site", param="system")


def evaluate(options: EvaluateOptions) -> None:
    """Run the study and print its table. Raises InvalidArgument where the data are absent."""
    import torch

    from nonet.research.tasfar.study import SEEDS, housing_study

    torch.set_num_threads(1)  # for networks this small, threads wait more than they work
    console = Console(width=None if os.isatty(1) else 140)
    seeds = SEEDS if options.seeds is None else options.seeds
    try:
        facts = housing_study(data_root(), seeds, lambda line: print(line, flush=True))
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    for inputs, found in facts["inputs"].items():
        console.print(_table(inputs, found))
    if options.output is not None:
        stated = {
            "command": f"nonet evaluate tasfar --seeds {seeds}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **facts,
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
        console.print(f"results in {options.output}")


def _table(inputs: str, found: Mapping[str, Any]) -> Table:
    view = Table(title=f"housing, {inputs} inputs: mean square error, (100,000 USD)^2", title_justify="left")
    view.add_column("seed")
    for title in _COLUMNS.values():
        view.add_column(title, justify="right")
    for row in found["each"]:
        view.add_row(str(row["seed"]), *(_shown(name, row[name]) for name in _COLUMNS))
    view.add_row("mean", *(_shown(name, found["mean"][name]) for name in _COLUMNS))
    return view


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "uncertain_share" else f"{value:.3f}"
