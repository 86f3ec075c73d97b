"""`nonet train fasternet` and `nonet evaluate fasternet`: recipes with their files, progress and tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nonet.research.fasternet.grocery_files import data_root
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    from nonet.research.fasternet.evaluation import Baseline, Score
    from nonet.research.fasternet.training import Report

OTHER_TASK = (
    "The paper's figure is for ImageNet-1k with 1000 classes at 224 px: another task with 485 times the "
    "pictures. It stands here only to say which network a row is."
)


def train(options: TrainOptions) -> None:
    """Run a preset."""
    if options.preset == "paper":
        from nonet.research.fasternet.paper import train_paper

        with progress() as report:
            result = train_paper(options, report)
        console().print(f"top-1 on the validation folder: {result:.2f} %")
        return
    if options.preset == "patient":
        train_patiently(options)
        return
    from nonet.research.fasternet.grocery import train_grocery

    with progress() as report:
        published = train_grocery(options, report)
    for line in published:
        console().print(line)


def train_patiently(options: TrainOptions) -> None:
    """The preset `patient`: a line of JSON for each report, since its runs are followed in a log.

    Training itself needs none of the packages that serve: a machine that only trains (`--no-publish`) may
    lack them, and the results are published elsewhere with `--resume`.
    """
    from nonet.research.fasternet.patient import train_patient

    trained = train_patient(options, lambda line: print(json.dumps(line), flush=True))
    if options.publish:
        from nonet.research.fasternet.grocery import finish_patient

        for line in finish_patient(options, trained):
            console().print(line)


def console() -> Console:
    return Console(width=None if os.isatty(1) else 140)


@contextmanager
def progress() -> Iterator[Report]:
    """A reporter that draws one bar per stage: step, loss, pictures per second, time left."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(
            "{task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]}  {task.fields[rate]} img/s"
        ),
        TimeRemainingColumn(),
        console=console(),
    )
    stages: dict[str, int] = {}
    with bar:

        def report(line: dict[str, float | int | str]) -> None:
            stage = str(line["stage"])
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=float(line["steps"]), loss="", rate="")
            bar.update(
                stages[stage],  # type: ignore[arg-type]
                completed=float(line["step"]),
                loss=line["loss"],
                rate=line["images_per_s"],
            )

        yield report


def evaluate(options: EvaluateOptions) -> None:
    """Measure every member of the family in the repository, print the table, write the results if asked."""
    from nonet.research.fasternet.evaluation import STATED_BASELINE, as_json, members, score

    root = data_root()
    scores = [
        score(root, folder, manifest, options.split) for folder, manifest in members(options.repository)
    ]
    baselines = [STATED_BASELINE]
    if options.baseline:
        from nonet.research.fasternet.baseline import linear_probe

        baselines.append(linear_probe(root, options.split, options.weights))
    out = console()
    out.print(table(scores, baselines, options.split))
    out.print(OTHER_TASK)
    if options.output is not None:
        command = f"nonet evaluate fasternet --split {options.split}"
        write(options.output, as_json(scores, baselines, {"command": command, "data": "grocery_128"}))
        out.print(f"results in {options.output}")


def table(scores: list[Score], baselines: list[Baseline], split: str) -> Table:
    """The results as a table, smallest member first."""
    view = Table(title=f"grocery_128, {split} split", title_justify="left")
    for heading, justify in (
        ("model", "left"),
        ("parameters", "right"),
        ("MACs", "right"),
        ("MB", "right"),
        ("fine top-1 % [95 %]", "right"),
        ("coarse top-1 %", "right"),
        ("paper, ImageNet %", "right"),
    ):
        view.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in scores:
        view.add_row(
            row.name,
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e6:.0f} M",
            f"{row.megabytes:.1f}",
            f"{row.fine:.1f} [{row.fine_low:.1f}, {row.fine_high:.1f}]",
            f"{row.coarse:.1f}",
            "" if row.paper_imagenet is None else f"{row.paper_imagenet:.1f}",
        )
    view.add_section()
    for base in baselines:
        view.add_row(f"{base.name} ({base.source})", "", "", "", f"{base.fine:.1f}", f"{base.coarse:.1f}", "")
    return view


def write(path: Path, text: str) -> None:
    """Write a results file. Raises InvalidArgument if it would not be valid JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"results are not JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
