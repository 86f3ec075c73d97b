"""``nonet train`` and ``nonet evaluate``: the research systems from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from nonet.cli.long_work import SAVE_SECONDS, long_work
from nonet.research.systems import (
    SYSTEMS,
    Benchmarked,
    EvaluateOptions,
    System,
    TrainOptions,
    check_benchmark,
    check_choice,
    check_pair,
    check_preset,
    check_timed,
    command_of,
    find,
)
from nonet.runtime.errors import InvalidArgument, NotFound

__all__ = ["register"]

_BENCHMARK = "Benchmarks of an endpoint (ref_l4)"
_SYSTEM_HELP = "Which system: " + "; ".join(f"{name} = {system.summary}" for name, system in SYSTEMS.items())


def train(
    system: Annotated[str, typer.Argument(help=_SYSTEM_HELP, show_default=False)],
    preset: Annotated[
        str, typer.Option(help="Size of the run: tiny (minutes to hours on a CPU) or paper (as published).")
    ] = "tiny",
    resume: Annotated[bool, typer.Option("--resume", help="Continue where the run was interrupted.")] = False,
    variant: Annotated[
        str | None,
        typer.Option(help="Only this member or variant (fasternet: nano, t0, ...; fis_one: a building)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Training data; by default the folder named by NONET_DATA.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where checkpoints go.")] = Path("runs"),
    repository: Annotated[Path, typer.Option(help="Model repository to publish into.")] = Path(
        "model_repository"
    ),
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Pretrained weights file; by default downloaded and checked "
            "(fasternet patient: given, they make a new teacher first)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads to train with.")] = 1,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Publish the result in the repository.")
    ] = True,
    device: Annotated[
        str, typer.Option(help="Where to train: cpu or cuda (long presets). Never chosen for you.")
    ] = "cpu",
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Wall time of the training, which the learning rate follows to 0 (long presets); "
            "by default the recipe's steps count.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="A published classifier that teaches --student on --data, pictures (stablekd)."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="The network that learns, e.g. nano or t0 (stablekd).")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse the networks (fasternet patient).")
    ] = False,
) -> None:
    """Train a research system and publish the result as a verified model version.

    Example: nonet train fasternet --preset tiny --resume
    """
    system = system.replace("-", "_")
    found = _system(system)
    options = TrainOptions(
        preset=preset,
        repository=repository,
        runs=runs / system,
        resume=resume,
        seed=seed,
        threads=threads,
        data=data,
        variant=variant,
        weights=weights,
        publish=publish,
        device=device,
        minutes=minutes,
        compiled=compiled,
        teacher=teacher,
        student=student,
    )
    try:
        check_preset(found, preset)
        check_timed(found, options)
        check_pair(system, options)
    except InvalidArgument as error:
        raise typer.BadParameter(error.message) from None
    again = _again("train", system, preset, variant)
    if teacher and student:
        again += f" --teacher {shlex.quote(teacher)} --student {shlex.quote(student)}"
    with long_work(f"preparing to train {system}", f"go on with: {again} --resume", SAVE_SECONDS) as say:
        command = command_of(found, "train", found.train_needs)
        say(f"training {system}")
        command(options)


def evaluate(
    system: Annotated[str, typer.Argument(help=_SYSTEM_HELP, show_default=False)],
    split: Annotated[str, typer.Option(help="Which part of the data: train, val or test.")] = "test",
    repository: Annotated[Path, typer.Option(help="Model repository to evaluate.")] = Path(
        "model_repository"
    ),
    output: Annotated[Path | None, typer.Option(help="Also write the results here, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Measure the baseline again (needs the extra research).")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Pretrained weights of the baseline; downloaded by default.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each method (fis_one; 10 by default).")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="Only this building (fis_one); with /N, N scans of each of its floors."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this method (fis_one), by its name in the table; may be repeated."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Annotations: a file or a folder.", rich_help_panel=_BENCHMARK)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of their pictures.", rich_help_panel=_BENCHMARK)
    ] = None,
    endpoint: Annotated[
        str, typer.Option(help="Address of a server, e.g. http://localhost:8000.", rich_help_panel=_BENCHMARK)
    ] = "",
    model: Annotated[str, typer.Option(help="Model there.", rich_help_panel=_BENCHMARK)] = "auto",
    family: Annotated[
        str,
        typer.Option(
            help="A chat endpoint (OpenAI-compatible): how the model is asked and read, e.g. qwen2_vl.",
            rich_help_panel=_BENCHMARK,
        ),
    ] = "",
    predictions: Annotated[
        Path | None, typer.Option(help="File of predictions instead.", rich_help_panel=_BENCHMARK)
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="File of the answers so far; a new run goes on with it.", rich_help_panel=_BENCHMARK
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Pictures asked about at once.", rich_help_panel=_BENCHMARK)
    ] = 4,
) -> None:
    """Measure published models of a system on its data, through the files and code that serve; or an
    endpoint.

    Example: nonet evaluate fasternet --split test --output results.json
    Example: nonet evaluate ref_l4 --data ref-l4 --images images --endpoint http://localhost:8000 --split all
    """
    system = system.replace("-", "_")
    found = _system(system)
    needs = ("torch",) if baseline else found.evaluate_needs
    options = EvaluateOptions(
        repository=repository,
        split=split,
        output=output,
        baseline=baseline,
        weights=weights,
        seeds=seeds,
        variant=variant,
        methods=tuple(method or ()),
        benchmark=Benchmarked(data, images, endpoint, model, family, predictions, answers, concurrency),
    )
    try:
        check_choice(system, options)
        check_benchmark(system, options)
    except InvalidArgument as error:
        raise typer.BadParameter(error.message) from None
    after = f"nothing was written; again with: nonet evaluate {system}"
    with long_work(f"preparing to evaluate {system}", after) as say:
        command = command_of(found, "evaluate", needs)
        say(f"evaluating {system}")
        if as_json:
            _print_results(command, options)
        else:
            command(options)


def _print_results(command: Callable[[EvaluateOptions], None], options: EvaluateOptions) -> None:
    """What an evaluation writes as JSON, on standard output, and its tables on standard error."""
    with tempfile.TemporaryDirectory(prefix="nonet-evaluate-") as folder:
        output = options.output or Path(folder) / "results.json"
        with contextlib.redirect_stdout(sys.stderr):
            command(dataclasses.replace(options, output=output))
        print(output.read_text().rstrip())


def _again(verb: str, system: str, preset: str, variant: str | None) -> str:
    chosen = f" --variant {shlex.quote(variant)}" if variant else ""
    return f"nonet {verb} {system} --preset {preset}{chosen}"


def _system(name: str) -> System:
    """The system called ``name``. Raises BadParameter, which is wrong usage, for an unknown one."""
    try:
        return find(name)
    except NotFound as error:
        raise typer.BadParameter(error.message) from None


def register(app: typer.Typer) -> None:
    """Add the two commands to the ``nonet`` command."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)
