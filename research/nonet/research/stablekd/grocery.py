"""A FasterNet of the grocery family distilled block by block from the family's published teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nonet.research.devices import usable_device
from nonet.research.fasternet import network as fasternet
from nonet.research.fasternet.augment import ViewPolicy, random_views
from nonet.research.fasternet.data import LabelledPictures, load_grocery
from nonet.research.fasternet.device_training import Learner, fit_together, stop_on_signals
from nonet.research.fasternet.distillation import Normalised
from nonet.research.fasternet.evaluation import members, score
from nonet.research.fasternet.grocery import (
    best_view,
    data_sources,
    finish,
    measure,
    model_name,
)
from nonet.research.fasternet.grocery_files import data_root, load_classes
from nonet.research.fasternet.network_files import TEACHER
from nonet.research.fasternet.published_teacher import load_published
from nonet.research.fasternet.training import Report, Schedule
from nonet.research.stablekd.blocks import Blocks, split_fasternet, split_lite
from nonet.research.stablekd.distillation import Distillation
from nonet.research.stablekd.schedule import SCHEDULES, Partition
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import Preprocessing

SIZE = 128
SCHEDULE = Schedule(steps=20_000, batch=64, lr=2e-3, clip=1.0, ema=0.998, bfloat16=False, minutes=60.0)

Lesson = tuple[list[Tensor], Tensor, Partition]


class _Scaled(nn.Module):
    """Mean and standard deviation of a network, before its first block."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalised: Normalised) -> None:
        super().__init__()
        self.register_buffer("mean", normalised.mean, persistent=False)
        self.register_buffer("std", normalised.std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def blocks_of(normalised: Normalised) -> Blocks:
    """The four blocks of a FasterNet or a Lite0, for images in [0, 1]."""
    network = normalised.network
    found = split_fasternet(network) if isinstance(network, fasternet.FasterNet) else split_lite(network)
    first, *rest = found.blocks
    return Blocks([nn.Sequential(_Scaled(normalised), first), *rest])


def train_student(options: TrainOptions, report: Report) -> str:
    """Train a student, measure it, publish it if validation prefers it to the family's published one.

    Raises InvalidArgument for an unknown variant, an absent teacher or an absent device.
    """
    torch.set_num_threads(options.threads)
    device = usable_device(options.device)
    variant = options.variant or "nano"
    if variant not in fasternet.VARIANTS:
        known = ", ".join(fasternet.VARIANTS)
        raise InvalidArgument(f"unknown variant '{variant}': choose one of {known}", param="variant")
    root = options.data or data_root()
    classes = load_classes(root)
    teacher = load_published(options.repository / model_name(TEACHER) / "1" / "model.onnx")
    torch.manual_seed(options.seed)
    student = Normalised(
        fasternet.build(variant, len(classes.fine), drop_path=0.0), fasternet.MEAN, fasternet.STD
    )
    schedule = replace(SCHEDULE, seed=options.seed)
    if options.minutes is not None:
        schedule = replace(schedule, minutes=options.minutes)
    _distil(teacher, student, load_grocery(root, "train", SIZE), schedule, device, options, variant, report)
    student.cpu().eval()
    view = best_view(variant, student, load_grocery(root, "val", SIZE), classes)
    spec = Preprocessing(resize=view[0], crop=view[1], mean=fasternet.MEAN, std=fasternet.STD)
    ours = 100 * measure(student, root, "val", spec, classes)["top1"]
    published = [item for item in members(options.repository) if item[0].model == model_name(variant)]
    theirs = max((score(root, folder, manifest, "val").fine for folder, manifest in published), default=0.0)
    better = ours > theirs
    line = finish(
        variant,
        student,
        view,
        root,
        classes,
        replace(options, publish=options.publish and better),
        f"nonet train stablekd --variant {variant} --seed {options.seed} --device {options.device} "
        f"--minutes {schedule.minutes:g}",
        data_sources(),
        {"seed": options.seed, "distillation": "StableKD, halving, arXiv 2312.13223"},
    )
    verdict = "" if better else f"; not published: the published one has {theirs:.1f} % there"
    return f"{line}; validation {ours:.1f} %{verdict}"


def _distil(
    teacher: Normalised,
    student: Normalised,
    pictures: LabelledPictures,
    schedule: Schedule,
    device: torch.device,
    options: TrainOptions,
    variant: str,
    report: Report,
) -> None:
    plan = SCHEDULES["halving"](4)
    examples = pictures.pictures[:2].float() / 255
    taught_by = blocks_of(teacher)
    distillation = Distillation(taught_by, blocks_of(student), examples).to(device)
    taught_by.to(device)
    policy = ViewPolicy(mix_probability=0.0)
    shown, labels = pictures.pictures.to(device), pictures.fine.to(device)

    def lesson(index: Tensor, generator: torch.Generator, share: float) -> Lesson:
        views = random_views(shown[index], SIZE, policy, generator)
        return distillation.lesson(views), labels[index], plan.at(share)

    def loss_of(forward: Callable[..., Tensor], made: Lesson) -> Tensor:
        return forward(*made)

    learner = Learner("student", distillation, loss_of, schedule)
    with stop_on_signals() as stopping:
        fit_together(
            [learner],
            lesson,
            schedule,
            len(labels),
            device,
            options.runs / f"{variant}.pt",
            resume=options.resume,
            report=report,
            stopping=stopping,
        )
    distillation.load_state_dict(learner.average.state)
