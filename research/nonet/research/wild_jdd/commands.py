"""`nonet train wild_jdd` and `nonet evaluate wild_jdd`: runs with their files, progress and tables."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from nonet.research.devices import usable_device
from nonet.research.systems import EvaluateOptions, TrainOptions
from nonet.research.wild_jdd.calibration import Shown, draw_reliability, fit_calibration, show
from nonet.research.wild_jdd.evaluate import PAPER, as_table, run_benchmark
from nonet.research.wild_jdd.metrics import psnr
from nonet.research.wild_jdd.network import WildJdd
from nonet.research.wild_jdd.photographs import TrainingSet, load_training_set
from nonet.research.wild_jdd.presets import PRESETS
from nonet.research.wild_jdd.restorer import load_published_model, network_restorer
from nonet.research.wild_jdd.scoring import CUT, PictureSet, load_pictures
from nonet.research.wild_jdd.serving import Release, publish
from nonet.research.wild_jdd.train import Progress, Start, TrainConfig, Trainer, load_network
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.layout import read_model

MODEL = "wild_jdd"
SAVE_EVERY = 120.0  # seconds of training between checkpoints
CALIBRATED = (0.0, 1.0, 3.0, 5.0, 15.0, 25.0)
"""Levels of the noise, on the 0-255 scale, at which a version is calibrated and its quality is stated."""
SPLITS = ("test", "val", "extra")


def train(options: TrainOptions) -> None:
    """Run a preset to its end, saving as it goes, then calibrate, export and publish.

    Raises:
        InvalidArgument: for a variant or `compiled`, a device that is not there, or absent data.
    """
    if options.variant is not None:
        raise InvalidArgument("wild_jdd has no variants; choose a network by --preset", param="variant")
    if options.compiled:
        raise InvalidArgument("wild_jdd does not compile its network; leave out --compile", param="compile")
    torch.set_num_threads(options.threads)
    checkpoint = options.runs / options.preset / "checkpoint.safetensors"
    device = str(usable_device(options.device))
    try:
        pictures = load_training_set(options.data)
        trainer = start(options, checkpoint, pictures, device)
    except (FileNotFoundError, ValueError) as error:
        raise InvalidArgument(str(error)) from None
    with progress() as report:
        run_and_save(trainer, checkpoint, report)
    if options.publish:
        network, config = load_network(checkpoint)
        publish_checkpoint(network, config, options, pictures)


def start(options: TrainOptions, checkpoint: Path, pictures: TrainingSet, device: str = "cpu") -> Trainer:
    """A fresh trainer, or with `resume` the one that was interrupted, if there is any."""
    begin = Start(options.weights, published_graph(options.repository), options.data)
    if options.resume and checkpoint.is_file():
        return Trainer.resume(checkpoint, pictures, start=begin, device=device)
    return Trainer(configuration(options), pictures, start=begin, device=device)


def configuration(options: TrainOptions) -> TrainConfig:
    """The preset with the seed and, if given, the minutes that were asked for."""
    config = replace(PRESETS[options.preset], seed=options.seed)
    return config if options.minutes is None else replace(config, minutes=options.minutes)


def published_graph(repository: Path) -> Path | None:
    """The graph of the newest published version, if there is any."""
    model = read_model(repository, MODEL)
    if model is None or not model.versions:
        return None
    newest = max(model.versions, key=lambda version: int(version.version))
    return newest.path / "model.onnx"


def run_and_save(trainer: Trainer, checkpoint: Path, report: Callable[[Progress], None]) -> None:
    """Train to the end of the budget, with a checkpoint every few minutes and at the end."""
    saved = trainer.seconds

    def observe(line: Progress) -> None:
        nonlocal saved
        report(line)
        if line.seconds - saved > SAVE_EVERY:
            trainer.save(checkpoint)
            saved = line.seconds

    trainer.run(observe, every=5)
    trainer.save(checkpoint)


def publish_checkpoint(
    network: WildJdd,
    config: TrainConfig,
    options: TrainOptions,
    pictures: TrainingSet,
) -> None:
    """Calibrate and measure on held-out photographs, export, prove and publish."""
    restorer = network_restorer(network)
    shown = show(restorer, pictures.held_out_tensors(), CALIBRATED)
    release = Release(
        variant=options.preset,
        command=command_line(options, config),
        published_start=config.published_start or config.own_start,
        taught=config.taught > 0,
        quality=held_out_quality(shown),
    )
    folder = publish(
        options.repository, MODEL, network, fit_calibration(shown), release, pictures, replace=True
    )
    console().print(f"published {folder.model} version {folder.version}")


def command_line(options: TrainOptions, config: TrainConfig) -> str:
    """What was typed to come to this version, as far as it decides what comes out."""
    line = f"nonet train wild_jdd --preset {options.preset} --seed {config.seed}"
    if config.minutes != PRESETS[options.preset].minutes:
        line += f" --minutes {config.minutes:g}"
    return line if options.device == "cpu" else f"{line} --device {options.device}"


def held_out_quality(shown: Sequence[Shown]) -> dict[str, float | int | str]:
    """Mean PSNR in dB by noise level on photographs that no training step has seen."""
    found: dict[str, float | int | str] = {}
    for sigma in dict.fromkeys(each.sigma for each in shown):
        marks = [psnr(each.restored.image, each.picture, border=CUT) for each in shown if each.sigma == sigma]
        found[f"psnr_sigma_{sigma:g}"] = round(sum(marks) / len(marks), 2)
    return {**found, "measured_on": f"{len(marks)} held-out photographs, 10 px cut"}


def evaluate(options: EvaluateOptions) -> None:
    """Measure the published version, print the tables, write JSON and the reliability plot if asked.

    Raises:
        InvalidArgument: for an unknown split or absent data.
        NotFound: if nothing is published.
    """
    if options.split not in SPLITS:
        raise InvalidArgument(f"unknown split '{options.split}'; known: {', '.join(SPLITS)}", param="split")
    model = load_published_model(options.repository, MODEL)
    try:
        sets = picture_sets(options.split)
    except FileNotFoundError as error:
        raise InvalidArgument(str(error)) from None
    out = console()
    benchmark, curves = run_benchmark(
        model.restorer, model.quantiles, sets, baseline=options.baseline, report=lambda line: out.print(line)
    )
    out.print("PSNR in dB, 10 px cut", *as_table(benchmark.scores), sep="\n", markup=False)
    out.print("PSNR in dB, no cut", *as_table(benchmark.scores, "psnr"), sep="\n", markup=False)
    out.print("SSIM", *as_table(benchmark.scores, "ssim"), sep="\n", markup=False)
    for name, levels in benchmark.coverage.items():
        for level, shares in levels.items():
            out.print(f"coverage on {name}, sigma {level}: {shares}", markup=False)
    out.print(f"noise map, mean of flat areas by true level: {benchmark.noise_map}", markup=False)
    out.print(f"the paper: {PAPER}", markup=False)
    for line in benchmark.left_out:
        out.print(f"not measured: {line}", markup=False)
    if options.output is not None:
        facts = {"model": model.name, "version": model.version, "split": options.split}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({**facts, **benchmark.to_json()}, indent=1), encoding="utf-8")
        out.print(f"results in {options.output}", markup=False)
        if importlib.util.find_spec("matplotlib"):
            plot = options.output.with_suffix(".png")
            draw_reliability(curves, str(plot))
            out.print(f"reliability plot in {plot}", markup=False)
        else:
            out.print("not drawn: the reliability plot (pip install matplotlib)", markup=False)


def picture_sets(split: str) -> list[PictureSet]:
    """A split: `test` is Kodak and McMaster, `val` held-out photographs, `extra` moire-prone pictures."""
    if split == "val":
        return [PictureSet("held-out", load_training_set().held_out_tensors())]
    names = ("kodak", "mcmaster") if split == "test" else ("urban100_crops", "mit_jdd_patches")
    return [load_pictures(name) for name in names]


def console() -> Console:
    return Console(width=None if os.isatty(1) else 160)


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A reporter that draws one bar: part done, step, loss, time left."""
    bar = Bar(
        TextColumn("wild_jdd"),
        BarColumn(),
        TextColumn("{task.percentage:.1f} %  step {task.fields[step]}  loss {task.fields[loss]:.3g}"),
        TimeRemainingColumn(),
        console=console(),
    )
    task = bar.add_task("train", total=1.0, step=0, loss=0.0)
    with bar:
        yield lambda line: bar.update(task, completed=line.fraction, step=line.step, loss=line.loss)
