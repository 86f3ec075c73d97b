"""A student of any published classifier: distilled block by block from pictures, measured on those held back,
and published into the teacher's family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from nonet.research.devices import usable_device
from nonet.research.fasternet import network as fasternet
from nonet.research.fasternet.augment import ViewPolicy, random_views
from nonet.research.fasternet.device_training import Learner, fit_together
from nonet.research.fasternet.release import CHECK_ROWS, Release, publish
from nonet.research.fasternet.training import Schedule
from nonet.research.stablekd.blocks import Blocks, merged, split_fasternet
from nonet.research.stablekd.distillation import UNLABELLED, Distillation, Weights
from nonet.research.stablekd.photographs import Photographs, Split, read_photographs
from nonet.research.stablekd.schedule import SCHEDULES, Partition
from nonet.research.stablekd.teacher_graph import STRIDES, GraphTeacher
from nonet.runtime.errors import InvalidArgument, NotFound
from nonet.runtime.images import Preprocessing
from nonet.runtime.repository import manifest as manifests
from nonet.runtime.repository.labels import LABELS_FILE, read_labels
from nonet.runtime.repository.layout import MANIFEST_FILE, read_model
from nonet.runtime.repository.manifest import Manifest, read_manifest

__all__ = ["Outcome", "Pair", "TeacherVersion", "distil_pair", "student_name", "teacher_version"]

_PAPER: Final = "arXiv 2312.13223"
_EVALUATED_AT_ONCE: Final = 32

Report = Callable[[float, str], None]
_Lesson = tuple[list[Tensor], Tensor, Partition]


@dataclass(frozen=True)
class TeacherVersion:
    """The newest version of a published classifier, as files."""

    name: str
    version: str
    graph: Path
    manifest: Manifest
    labels: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def family(self) -> str:
        """The family that its student joins: its own, or one of its name."""
        return self.manifest.family or self.name


@dataclass(frozen=True)
class Pair:
    """What is to be distilled.

    Args:
        repository: has the teacher, and gets the student.
        teacher: name of a classification network.
        student: a variant of FasterNet, e.g. ``nano``.
        pictures: folder, zip or tar; see `photographs`.
        minutes: of training, which the learning rate follows to its end.
        schedule: of merging, a name of `SCHEDULES`; ``end_to_end`` is plain feature distillation.
        seed: of every random choice.
        threads: of the CPU.
        device: of the student; the teacher is always asked on the CPU.
        name: of the published model; by default made of teacher and student.
        data: what the manifest says of the pictures.
        command: what the manifest says of how it was made.
        owner: the tenant whose model it is, "" for everybody's.
        publish: whether it is published.
        least_agreement: share 0..1 of the pictures held back on which a student must agree with its teacher
        to
            be published.
    """

    repository: Path
    teacher: str
    student: str
    pictures: Path
    minutes: float
    schedule: str = "halving"
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    name: str = ""
    data: tuple[manifests.DataSource, ...] = ()
    command: str = ""
    owner: str = ""
    publish: bool = True
    least_agreement: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """What came of it: the published version ("" if none), its quality, and what is to be known of it."""

    model: str
    version: str
    quality: Mapping[str, float | int | str]
    notes: tuple[str, ...] = field(default=())


def student_name(student: str, teacher: str) -> str:
    """Name of the student's model, e.g. ``efficientnet_lite0_grocery_nano``."""
    return f"{teacher}_{student}"


def teacher_version(repository: Path, name: str) -> TeacherVersion:
    """The newest version of a classifier.

    Raises NotFound if there is none of that name, InvalidArgument if it classifies no pictures or is no ONNX
    graph.
    """
    model = read_model(repository, name)
    if model is None or not model.versions:
        raise NotFound(f"there is no model '{name[:80]}' in the repository", param="teacher")
    newest = max(model.versions, key=lambda version: int(version.version))
    graph, manifest = newest.path / "model.onnx", read_manifest(newest.path / MANIFEST_FILE)
    if manifest is None or manifest.task != "classification" or manifest.preprocessing is None:
        raise InvalidArgument(
            f"model '{name}' classifies no pictures; a teacher is a classification network", param="teacher"
        )
    if not graph.is_file():
        raise InvalidArgument(f"model '{name}' is no ONNX graph", param="teacher")
    labels = model.path / LABELS_FILE
    return TeacherVersion(
        name=name,
        version=newest.version,
        graph=graph,
        manifest=manifest,
        labels=read_labels(labels) if labels.is_file() else (),
        preprocessing=Preprocessing.from_manifest(manifest.preprocessing.model_dump()),
    )


def distil_pair(
    pair: Pair,
    report: Report,
    *,
    checkpoint: Path,
    resume: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Distil, measure on the tenth held back, publish.

    A student that agrees with its teacher too seldom, or no more often than always naming the commonest class
    would, is not published.

    Raises NotFound, InvalidArgument for a pair that cannot be, and what publishing raises.
    """
    torch.set_num_threads(pair.threads)
    if pair.student not in fasternet.VARIANTS:
        known = ", ".join(fasternet.VARIANTS)
        raise InvalidArgument(f"unknown student '{pair.student[:40]}': one of {known}", param="student")
    if pair.schedule not in SCHEDULES:
        raise InvalidArgument(
            f"unknown schedule '{pair.schedule[:40]}': one of {', '.join(SCHEDULES)}", param="schedule"
        )
    device = usable_device(pair.device)
    taught_by = teacher_version(pair.repository, pair.teacher)
    spec = taught_by.preprocessing
    report(0.0, "reading the pictures")
    shown = read_photographs(pair.pictures, taught_by.labels, spec, pair.seed)
    teacher = GraphTeacher(taught_by.graph.read_bytes(), spec.crop, spec.mean, spec.std, pair.threads)
    classes = teacher.features(torch.zeros(1, 3, spec.crop, spec.crop))[-1].shape[1]
    torch.manual_seed(pair.seed)
    network = fasternet.build(pair.student, classes, drop_path=0.0)
    student = _blocks(network, spec, [cut.stride for cut in teacher.cuts])
    _fit(pair, teacher, student, shown, device, report, checkpoint, resume, stopping)
    network.cpu().eval()
    report(0.95, "measuring")
    quality, notes = _measure(student.cpu().eval(), teacher, shown, spec)
    if shown.refused:
        notes.append(f"{shown.refused} files could not be read as pictures")
    name = pair.name or student_name(pair.student, pair.teacher)
    least = max(pair.least_agreement, quality["agreement_of_commonest"])
    if quality["agreement"] < least or quality["agreement"] == quality["agreement_of_commonest"]:
        notes.append(
            f"not published: it agrees with its teacher on {quality['agreement']:.1%} of the pictures held "
            f"back, at least {least:.1%} were wanted; give it more minutes, or more pictures of its task"
        )
        return Outcome(name, "", quality, tuple(notes))
    if not pair.publish:
        return Outcome(name, "", quality, tuple(notes))
    report(0.97, "publishing")
    release = Release(
        system="fasternet",
        variant=pair.student,
        paper=_PAPER,
        command=pair.command,
        preprocessing=manifests.Preprocessing(**spec.to_manifest()),
        labels=taught_by.labels,
        family=taught_by.family,
        licence=taught_by.manifest.licence,
        credit=taught_by.manifest.credit,
        data=(*pair.data, *taught_by.manifest.data),
        quality=quality,
        facts={
            "teacher": f"{taught_by.name} version {taught_by.version}",
            "distillation": f"StableKD, {pair.schedule}",
            "seed": pair.seed,
            "minutes": pair.minutes,
        },
        owner=pair.owner,
    )
    check = _views(shown.test.pictures[:CHECK_ROWS], spec.crop)
    normalised = (check - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]
    rows = np.resize(normalised.numpy(), (CHECK_ROWS, *normalised.shape[1:])).astype(np.float32)
    folder = publish(pair.repository, name, network, release, check_images=rows)
    return Outcome(name, folder.version, quality, tuple(notes))


class _Scaled(nn.Module):
    """Mean and standard deviation of the teacher's preprocessing, which is the student's too."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _blocks(network: fasternet.FasterNet, spec: Preprocessing, strides: list[int]) -> Blocks:
    """The student for images in 0..1, cut where its teacher is."""
    split = merged(split_fasternet(network), [STRIDES.index(stride) for stride in strides])
    first, *rest = split.blocks
    return Blocks([nn.Sequential(_Scaled(spec), first), *rest])


def _fit(
    pair: Pair,
    teacher: GraphTeacher,
    student: Blocks,
    shown: Photographs,
    device: torch.device,
    report: Report,
    checkpoint: Path,
    resume: bool,
    stopping: Callable[[], bool],
) -> None:
    train, side = shown.train, teacher.size
    some = bool((train.labels != UNLABELLED).any())
    weights = Weights() if some else Weights(alpha=1.0)
    module = Distillation(teacher, student, _views(train.pictures[:2], side), weights).to(device)
    plan = SCHEDULES[pair.schedule](len(teacher))
    policy = ViewPolicy(mix_probability=0.0)
    schedule = Schedule(
        steps=1_000_000,
        batch=min(64, len(train.labels)),
        lr=2e-3,
        ema=0.99,
        bfloat16=False,
        seed=pair.seed,
        minutes=pair.minutes,
    )

    def lesson(index: Tensor, generator: torch.Generator, share: float) -> _Lesson:
        report(0.02 + 0.92 * share, f"distilling in {len(plan.at(share))} parts")
        views = random_views(train.pictures[index.cpu()].to(device), side, policy, generator)
        given = [each.to(device) for each in teacher.features(views.cpu())]
        return given, train.labels[index.cpu()].to(device), plan.at(share)

    learner: Learner[_Lesson] = Learner("student", module, lambda forward, made: forward(*made), schedule)
    fit_together(
        [learner],
        lesson,
        schedule,
        len(train.labels),
        device,
        checkpoint,
        resume=resume,
        stopping=stopping,
        save_every=30.0,
    )
    module.load_state_dict(learner.average.state)


def _views(pictures: Tensor, side: int) -> Tensor:
    """The central squares of pictures uint8 [N, 3, S, S], as images [N, 3, side, side] in 0..1."""
    first = round((pictures.shape[-1] - side) / 2)
    return pictures[:, :, first : first + side, first : first + side].float() / 255


@torch.no_grad()
def _answers(network: Callable[[Tensor], Tensor], part: Split, side: int) -> Tensor:
    return torch.cat(
        [network(_views(rows, side)).argmax(1) for rows in part.pictures.split(_EVALUATED_AT_ONCE)]
    )


def _measure(
    student: Blocks, teacher: GraphTeacher, shown: Photographs, spec: Preprocessing
) -> tuple[dict[str, Any], list[str]]:
    """Shares 0..1 on the tenth that was neither trained on nor chosen by."""
    ours = _answers(student, shown.test, spec.crop)
    theirs = _answers(lambda images: teacher.features(images)[-1], shown.test, spec.crop)
    count = len(ours)
    commonest = int(torch.bincount(theirs).max())
    quality: dict[str, Any] = {
        "agreement": round(float((ours == theirs).float().mean()), 4),
        "agreement_of_commonest": round(commonest / count, 4),
        "pictures": count,
        "split": "a random tenth, held back",
    }
    notes = []
    if shown.labelled:
        quality["top1"] = round(float((ours == shown.test.labels).float().mean()), 4)
        quality["teacher_top1"] = round(float((theirs == shown.test.labels).float().mean()), 4)
    else:
        notes.append(
            "the pictures have no labels, so only the agreement with the teacher is known, and `auto` keeps "
            "the teacher"
        )
    return quality, notes
