"""`nonet train fis_one` and `nonet evaluate fis_one`: fitting a surveyed building, and the study."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nonet.research.fis_one.building import FitOptions, FitProgress
from nonet.research.fis_one.data import BUILDINGS, load_building
from nonet.research.fis_one.description import LOSS_OF_CHANCE
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.publish import publish_building
from nonet.research.fis_one.recipes import DEFAULT, RECIPES
from nonet.research.fis_one.study import CASES, METHODS, run_study, serving_table, table
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.runtime.errors import InvalidArgument

DEFAULT_BUILDING = "cetc331"
DEFAULT_SEEDS = 10
PAPER_CLAIM = "up to 23 % better ARI and 25 % better NMI than its baselines, with one label (abstract)"

PRESETS = {"tiny": dataclasses.replace(DEFAULT, steps=400), **RECIPES}
"""Recipes by preset; with fewer steps than these of tiny the network may not have learned yet."""


def train(options: TrainOptions) -> None:
    """Fit the building named by ``--variant`` with one label on its bottom floor, and publish it.

    An interrupted fit is kept and taken up with ``--resume``. Raises InvalidArgument for an unknown building,
    absent data, or a network that did not learn more than chance, which is not published.
    """
    name = options.variant or DEFAULT_BUILDING
    if name not in BUILDINGS:
        raise InvalidArgument(f"unknown building '{name}'; known: {', '.join(BUILDINGS)}", param="variant")
    try:
        building = load_building(name, options.data)
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    checkpoint = options.runs / options.preset / f"{name}.safetensors"
    if not options.resume:
        checkpoint.unlink(missing_ok=True)
    asked = FitOptions(
        preset="paper" if options.preset == "paper" else "default",
        names=building.floors,
        seed=options.seed,
        threads=options.threads,
    )
    with _progress(name) as report:
        fitted = fit_building(
            building.scans,
            building.label(options.seed),
            asked,
            report=report,
            checkpoint=checkpoint,
            recipe=PRESETS[options.preset],
        )
    checkpoint.unlink(missing_ok=True)
    out = _console()
    for floor, count in fitted.facts["scans_per_floor"].items():
        out.print(f"floor {floor}: {count} scans", markup=False)
    for warning in fitted.facts["warnings"]:
        out.print(f"note: {warning}", markup=False)
    loss = fitted.facts["quality"]["loss"]
    if options.publish and not loss < LOSS_OF_CHANCE:
        raise InvalidArgument(
            f"not published: the network did not learn more than chance (loss {loss:.3f}, of chance "
            f"{LOSS_OF_CHANCE:.3f}); train it longer, with --preset default",
            param="preset",
        )
    if options.publish:
        command = f"nonet train fis_one --preset {options.preset} --variant {name} --seed {options.seed}"
        folder = publish_building(options.repository, name, fitted, command=command)
        out.print(f"published {folder.model} version {folder.version}", markup=False)


def evaluate(options: EvaluateOptions) -> None:
    """Run the study and print its tables; ``--output`` keeps each run as it ends, so a study goes on where it
    was stopped, and writes the tables beside it as markdown.

    ``--split``: "test" for all cases, or names of cases, separated by commas. ``--variant``: one case.
    ``--method``: some of the methods. Raises InvalidArgument for unknown names and absent data.
    """
    cases, methods = _cases(options), options.methods or METHODS
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise InvalidArgument(f"unknown method '{unknown[0]}'; known: {'; '.join(METHODS)}", param="method")
    seeds = options.seeds or DEFAULT_SEEDS
    out = _console()
    try:
        rows = run_study(
            cases,
            methods,
            seeds,
            results=options.output,
            report=lambda line: out.print(line, markup=False, soft_wrap=True),
        )
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    lines = [*table(rows), "", *serving_table(rows), "", f"The paper: {PAPER_CLAIM}."]
    out.print(*lines, sep="\n", markup=False)
    if options.output is not None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        command = _evaluation(options, seeds)
        facts = {"command": command, "date": today, "seeds": seeds, "paper": PAPER_CLAIM, "rows": rows}
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        head = ["# FIS-ONE: results", "", f"Command: `{command}`, {today}.", ""]
        options.output.with_suffix(".md").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
        out.print(f"results in {options.output}", markup=False)


def _cases(options: EvaluateOptions) -> tuple[str, ...]:
    """The cases that are asked for. Raises InvalidArgument for one that is unknown."""
    if options.variant is None:
        cases = CASES if options.split == "test" else tuple(options.split.split(","))
        unknown = [case for case in cases if not _is_case(case)]
        if unknown:
            known = f"test, {', '.join(CASES)}"
            raise InvalidArgument(f"unknown case '{unknown[0]}'; known: {known}", param="split")
        return cases
    if options.split != "test":
        raise InvalidArgument("give either --variant or --split", param="variant")
    if not _is_case(options.variant):
        known = ", ".join(CASES)
        raise InvalidArgument(f"unknown building '{options.variant}'; known: {known}", param="variant")
    return (options.variant,)


def _is_case(case: str) -> bool:
    """Whether it is a building, or one with the number of scans to draw of each floor."""
    building, slash, count = case.partition("/")
    drawn = len(count) < 10 and count.isascii() and count.isdigit() and int(count) > 0
    return building in BUILDINGS and (drawn or not slash)


def _evaluation(options: EvaluateOptions, seeds: int) -> str:
    """The command that measures the same again."""
    where = ["--split", options.split] if options.variant is None else ["--variant", options.variant]
    how = [word for method in options.methods for word in ("--method", method)]
    return shlex.join(["nonet", "evaluate", "fis_one", *where, *how, "--seeds", str(seeds)])


def _console() -> Console:
    return Console(width=None if os.isatty(1) else 160)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[FitProgress], None]]:
    """A reporter that draws one bar: what is being done, and the time left."""
    bar = Progress(
        TextColumn(name),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %  {task.fields[phase]}"),
        TimeRemainingColumn(),
        console=_console(),
    )
    task = bar.add_task("fit", total=1.0, phase="")
    with bar:
        yield lambda now: bar.update(task, completed=now.fraction, phase=now.phase)
