"""Training a detector by its preset: pictures into banks, views into steps, weights into a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from nonet.research.detection import pictures
from nonet.research.detection.assignment import Objects, detection_loss
from nonet.research.detection.backbones import start_from
from nonet.research.detection.bank import Bank, load_bank, pack
from nonet.research.detection.frozen import freeze_views
from nonet.research.detection.network import Detector
from nonet.research.detection.presets import Preset
from nonet.research.detection.teacher import Teacher
from nonet.research.detection.views import join, mosaics, views
from nonet.research.devices import usable_device
from nonet.research.fasternet.device_training import Learner, fit_together, stop_on_signals
from nonet.research.fasternet.grocery import imagenet_tensors
from nonet.research.fasternet.training import Report, Schedule, load_checkpoint
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument

WHOLE_SIDE, SMALL_SIDE = 320, 128
WHOLE_LEAST, SMALL_LEAST = 0.1, 0.2  # the teacher is less to be trusted in small pictures


def train_detector(preset: Preset, options: TrainOptions, report: Report) -> Detector:
    """A trained detector on the CPU in eval mode, with averaged weights.

    Raises InvalidArgument where the device is absent, FileNotFoundError where the data are.
    """
    torch.set_num_threads(options.threads)
    device = usable_device(options.device)
    root = options.data or pictures_root()
    whole, small = banks(preset, root, options.runs / "banks", report)
    schedule = replace(preset.schedule, seed=options.seed)
    if options.minutes is not None:
        schedule = replace(schedule, minutes=options.minutes)
    torch.manual_seed(options.seed)
    detector = Detector(replace(preset.shape, side=preset.crop or preset.shape.side))
    begin(detector, preset, options, whole.pixels[:64].float() / 255)
    folder = options.runs / preset.name
    checkpoint = folder / "checkpoint.pt"
    with stop_on_signals() as stopping:
        if preset.frozen:
            _train_top(
                preset, detector, whole, small, schedule, device, folder, options.resume, report, stopping
            )
        else:
            _train_whole(
                preset, detector, whole, small, schedule, device, checkpoint, options.resume, report, stopping
            )
    trained = Detector(preset.shape)  # of another side only the places differ, which are no weights
    trained.load_state_dict(detector.cpu().state_dict())
    return trained.eval()


def begin(detector: Detector, preset: Preset, options: TrainOptions, pictures: Tensor) -> None:
    """Give a fresh detector its first weights: those of an earlier run's checkpoint (`--weights FILE.pt`), or
    its backbone those of a trained classifier. `pictures` (B, 3, H, W) in [0, 1] are shown to the latter.

    Raises InvalidArgument if the checkpoint is of another network.
    """
    if options.weights is None or options.weights.suffix != ".pt":
        start_from(detector.pyramid, start_tensors(preset, options), pictures)
        return
    stored: dict[str, Any] = load_checkpoint(options.weights)
    try:
        detector.load_state_dict(stored["detector"]["average"])
    except (KeyError, RuntimeError) as error:
        raise InvalidArgument(
            f"{options.weights.name} is not a checkpoint of '{options.preset}'", param="weights"
        ) from error


def pictures_root() -> Path:
    """The data folder. Raises FileNotFoundError with the way out if there is none."""
    from nonet.research.fasternet.grocery_files import data_root

    return data_root()


def banks(preset: Preset, root: Path, folder: Path, report: Report) -> tuple[Bank, Bank | None]:
    """The preset's pictures, packed first where that was not yet done."""
    graph = root / "yolox_nano_coco" / "yolox_nano.onnx"
    sources: Mapping[str, Callable[[], object]] = {
        "coco": lambda: pictures.coco(root, "train2017"),
        "voc": lambda: pictures.voc_animals(root, "train"),
        "flickr": lambda: pictures.unlabelled(root, "flickr8k_1000"),
        "tiny": lambda: pictures.tiny_imagenet(root),
        "fod": lambda: pictures.debris(root, "train"),
        "cells": lambda: pictures.cells(root, "train"),
    }
    taught = preset.family == "coco"

    def files(names: tuple[str, ...], side: int, least: float) -> list[Path]:
        paths = []
        for name in names:
            path = folder / f"{name}_{side}.safetensors"
            if not path.exists():
                teacher = Teacher(graph) if taught else None

                def told(count: int, name: str = name) -> None:
                    if count % 200 == 0:
                        report({"stage": f"packing {name}", "step": count})

                pack(sources[name](), path, side, teacher, least, told)  # type: ignore[arg-type]
            paths.append(path)
        return paths

    side = max(WHOLE_SIDE, preset.shape.side)
    whole = load_bank(files(preset.whole, side, WHOLE_LEAST), side)
    if not preset.small:
        return whole, None
    return whole, load_bank(files(preset.small, SMALL_SIDE, SMALL_LEAST), SMALL_SIDE)


def start_tensors(preset: Preset, options: TrainOptions) -> Mapping[str, Tensor]:
    """What the backbone begins with: the published ImageNet weights, or our own trained classifier."""
    if preset.shape.backbone == "efficientnet_lite0":
        return {name: torch.as_tensor(value) for name, value in imagenet_tensors(options.weights).items()}
    graph = options.weights or options.repository / f"{preset.shape.backbone}_grocery" / "1" / "model.onnx"
    if not graph.is_file():
        raise InvalidArgument(f"no trained classifier at {graph} to begin with", param="weights")
    return {
        item.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(str(graph)).graph.initializer
    }


def view_maker(
    preset: Preset, whole: Bank, small: Bank | None
) -> Callable[[int, torch.Generator], tuple[Tensor, Objects]]:
    """A function from the size of a batch and a generator to a batch of views."""
    side, augmentation = preset.crop or preset.shape.side, preset.augmentation
    device = whole.pixels.device

    def pick(bank: Bank, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randint(len(bank), shape, generator=generator, device=device)

    def make(batch: int, generator: torch.Generator) -> tuple[Tensor, Objects]:
        four = round(batch * preset.shares[1])
        tiny = round(batch * preset.shares[2]) if small is not None else 0
        parts = [views(whole, pick(whole, generator, batch - four - tiny), side, augmentation, generator)]
        if four:
            parts.append(mosaics(whole, pick(whole, generator, four, 4), side, augmentation, generator))
        if small is not None and tiny:
            parts.append(mosaics(small, pick(small, generator, tiny, 4), side, augmentation, generator))
        return join(parts)

    return make


def _train_top(
    preset: Preset,
    detector: Detector,
    whole: Bank,
    small: Bank | None,
    schedule: Schedule,
    device: torch.device,
    folder: Path,
    resume: bool,
    report: Report,
    stopping: Callable[[], bool],
) -> None:
    make_views = view_maker(preset, whole, small)

    def make(step: int) -> tuple[Tensor, Objects]:
        return make_views(schedule.batch, torch.Generator().manual_seed(schedule.seed * 1_000_003 + step))

    def told(step: int) -> None:
        if step % 10 == 0:
            report({"stage": "frozen views", "step": step, "steps": preset.frozen})

    frozen = freeze_views(
        detector.pyramid, make, preset.frozen, preset.shape.side, folder / "views.safetensors", told
    )
    top = detector.top.to(device)

    def lesson(index: Tensor, generator: torch.Generator, share: float) -> tuple[list[Tensor], Objects]:
        maps, objects = frozen.at(index.cpu())
        return [each.to(device) for each in maps], Objects(
            objects.boxes.to(device), objects.classes.to(device), objects.scores.to(device)
        )

    def loss_of(forward: Callable[..., tuple[Tensor, Tensor]], made: tuple[list[Tensor], Objects]) -> Tensor:
        logits, boxes = forward(made[0])
        return detection_loss(logits, boxes, made[1], top.centres)

    learner = Learner("top", top, loss_of, schedule)
    fit_together(
        [learner],
        lesson,
        schedule,
        len(frozen),
        device,
        folder / "checkpoint.pt",
        resume=resume,
        report=report,
        stopping=stopping,
        report_every=20.0,
    )
    top.load_state_dict(learner.average.state)


def _train_whole(
    preset: Preset,
    detector: Detector,
    whole: Bank,
    small: Bank | None,
    schedule: Schedule,
    device: torch.device,
    checkpoint: Path,
    resume: bool,
    report: Report,
    stopping: Callable[[], bool],
) -> None:
    detector.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    make_views = view_maker(preset, whole.to(device), None if small is None else small.to(device))

    def lesson(index: Tensor, generator: torch.Generator, share: float) -> tuple[Tensor, Objects]:
        images, objects = make_views(len(index), generator)
        return images.contiguous(memory_format=torch.channels_last), objects

    def loss_of(forward: Callable[..., tuple[Tensor, Tensor]], made: tuple[Tensor, Objects]) -> Tensor:
        logits, boxes = forward(made[0])
        return detection_loss(logits, boxes, made[1], detector.top.centres)

    learner = Learner("detector", detector, loss_of, schedule)
    fit_together(
        [learner],
        lesson,
        schedule,
        max(len(whole), schedule.batch),
        device,
        checkpoint,
        resume=resume,
        report=report,
        stopping=stopping,
        report_every=20.0,
    )
    detector.load_state_dict(learner.average.state)
