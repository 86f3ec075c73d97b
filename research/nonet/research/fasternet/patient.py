"""The preset `patient`: the students of the grocery family, taught long and consistently on one device.

After L. Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022: teacher
and student see the very same view, views are mixed strongly so that the teacher's function is asked far from
the pictures, and the schedule is much longer than labels alone would bear. All pictures lie decoded in the
device's memory; views and the teacher's answers are made there once a step, for all students.

There is no stage of general lessons: the teacher's features carry what it knows of ImageNet. With ImageNet
weights, a share of the time first goes to a new teacher; it is taken if validation does not prefer the
published one. Importing this module needs PyTorch, ONNX, ONNX Runtime and Pillow, and nothing that serves.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nonet.research.devices import usable_device
from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet import network as fasternet
from nonet.research.fasternet.augment import ViewPolicy, mix_each, random_views
from nonet.research.fasternet.data import LabelledPictures, load_grocery
from nonet.research.fasternet.device_training import Learner, fit_together, stop_on_signals
from nonet.research.fasternet.distillation import (
    HintedStudent,
    Normalised,
    feature_loss,
    smoothed,
    soft_cross_entropy,
    soft_target_loss,
)
from nonet.research.fasternet.family import FINE_CLASSES, PartlyFrozen, accuracy
from nonet.research.fasternet.grocery_files import data_root, load_classes
from nonet.research.fasternet.network_files import TEACHER, Trained, load_network, save_network
from nonet.research.fasternet.published_teacher import DeviceTeacher, load_published
from nonet.research.fasternet.training import Report, Schedule
from nonet.research.systems import TrainOptions
from nonet.research.weights import read_checkpoint
from nonet.runtime.errors import InvalidArgument

TEACHER_GRAPH = Path("efficientnet_lite0_grocery") / "1" / "model.onnx"
#: Steps that no clock will reach, for a schedule that the clock leads.
ENDLESS = 10**9


@dataclass(frozen=True)
class PatientRecipe:
    """Everything that decides a run. The steps of the schedules count only where no minutes are given."""

    teacher: Schedule = field(
        default_factory=lambda: Schedule(
            steps=4000, batch=128, lr=8e-4, min_lr=0.0, warmup=100, weight_decay=0.02, ema=0.998
        )
    )
    distil: Schedule = field(
        default_factory=lambda: Schedule(
            steps=30_000, batch=256, lr=2e-3, min_lr=0.0, warmup=300, weight_decay=0.05, ema=0.999
        )
    )
    members: tuple[str, ...] = ("nano", "t0")
    image_size: int = 128
    teacher_share: float = 0.2  # of the minutes, where there is a new teacher
    frozen_blocks: int = 2  # of the new teacher's 16
    smoothing: float = 0.05
    temperature: float = 2.0
    label_share: float = 0.1  # of the student's loss; the rest comes from the teacher's answers
    feature_weight: float = 2.0
    map_weight: float = 1.0
    teacher_mix: float = 0.5  # share of the views that are mixed
    student_mix: float = 0.8
    plain_end: float = 0.1  # last share of the schedule, unmixed: batch statistics then fit single pictures
    teacher_views: ViewPolicy = field(default_factory=lambda: ViewPolicy(min_area=0.35))
    student_views: ViewPolicy = field(default_factory=ViewPolicy)
    teacher_view: tuple[int, int] = (160, 160)  # central view (resize, crop) of the comparison on val
    student_view: tuple[int, int] = (146, 128)  # the same, for the log

    def with_options(self, options: TrainOptions) -> PatientRecipe:
        """With the seed and the variant of the options. Raises InvalidArgument for an unknown variant."""
        members = self.members if options.variant is None else (options.variant,)
        if members[0] not in fasternet.VARIANTS:
            known = ", ".join(fasternet.VARIANTS)
            raise InvalidArgument(f"unknown variant '{members[0]}': choose one of {known}", param="variant")
        return replace(
            self,
            members=members,
            teacher=replace(self.teacher, seed=options.seed),
            distil=replace(self.distil, seed=options.seed),
        )


@dataclass(frozen=True)
class Lesson:
    """Views (B, 3, S, S) in [0, 1], label distributions (B, C), and the teacher's maps
    (B, 1280, S/32, S/32) and logits (B, C) of these very views.
    """

    images: Tensor
    targets: Tensor
    maps: Tensor
    logits: Tensor


def train_patient(
    options: TrainOptions, report: Report, recipe: PatientRecipe | None = None
) -> dict[str, Trained]:
    """Train the members together, a new teacher before them where weights are given; returns them by name.

    With `options.resume`, an interrupted run goes on from its checkpoint; without a checkpoint, the networks
    in `options.runs` are taken as they are. Raises InvalidArgument where there is no such device, no
    pictures, no published teacher or no such variant.
    """
    recipe = (recipe or PatientRecipe()).with_options(options)
    run = PatientRun(options, recipe, report)
    if not (options.resume and run.has_networks()):
        run.train()
    return run.networks()


class PatientRun:
    """One run of the preset: its device, its pictures there, its clock and its files."""

    def __init__(self, options: TrainOptions, recipe: PatientRecipe, report: Report) -> None:
        self.options, self.recipe, self.report = options, recipe, report
        self.place = options.runs / "patient"
        self._compiler = torch.compile if options.compiled else None
        self._began = time.monotonic()

    def has_networks(self) -> bool:
        """Whether every member's file is here and no checkpoint that could be continued."""
        files = (self._file(member) for member in self.recipe.members)
        return all(path.is_file() for path in files) and not (self.place / "students.pt").exists()

    def networks(self) -> dict[str, Trained]:
        """Every network that there is: the members, and the teacher if it is a new one."""
        return {
            name: load_network(self._file(name), name, FINE_CLASSES)
            for name in (TEACHER, *self.recipe.members)
            if self._file(name).is_file()
        }

    def train(self) -> None:
        """Load, teach, distil; every result lies in files. A signal ends it early, and saves."""
        torch.set_num_threads(self.options.threads)
        self.device = usable_device(self.options.device)
        root = self.options.data or data_root()
        if not (root / "grocery_128" / "labels.csv").is_file():
            raise InvalidArgument(f"no grocery_128/labels.csv in {root}: name the folder with --data")
        published = load_published(self.options.repository / TEACHER_GRAPH).to(self.device)
        self._coarse = load_classes(root).coarse_of_fine
        self._train, self._val = (self._pictures(root, split) for split in ("train", "val"))
        if not self.options.resume:
            for stale in (TEACHER, *self.recipe.members):
                self._file(stale).unlink(missing_ok=True)
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        self._facts = {
            "command": command(self.options),
            "seed": str(self.options.seed),
            "device": name,
            "teacher": "published",
        }
        self.report({"stage": "data", "pictures": len(self._train), "device": name})
        with stop_on_signals() as stopping:
            teacher = published
            if self.options.weights is not None:
                teacher = self._better(published, self._teach(self.options.weights, stopping))
            if not stopping():
                self._distil(DeviceTeacher(teacher, self.device), stopping)

    def _file(self, name: str) -> Path:
        return self.place / f"{name}.safetensors"

    def _pictures(self, root: Path, split: str) -> LabelledPictures:
        loaded = load_grocery(root, split, self.recipe.image_size)
        return LabelledPictures(
            loaded.pictures.to(self.device), loaded.fine.to(self.device), loaded.coarse.to(self.device)
        )

    def _timed(self, schedule: Schedule, share: float) -> Schedule:
        """The schedule led by the clock over a share of the minutes that are left, if there are minutes."""
        if not self.options.minutes:
            return schedule
        left = self.options.minutes - (time.monotonic() - self._began) / 60
        return replace(schedule, steps=ENDLESS, minutes=max(1e-3, share * left))

    def _on_val(self, network: Normalised, view: tuple[int, int]) -> float:
        return round(accuracy(network, self._val, self._coarse, *view)[0], 1)

    def _notes(self, share: float, views: int, seconds: float, accuracy: float) -> dict[str, str]:
        """What the metadata say of a state of a run."""
        return {
            "run": f"{views} views of {self.recipe.image_size} px in {seconds / 60:.1f} minutes on "
            f"{self._facts['device']}, {100 * share:.0f} % of the schedule",
            "validation": f"fine {accuracy:.1f} % on {len(self._val)} pictures",
        }

    def _views(
        self, chosen: Tensor, generator: torch.Generator, policy: ViewPolicy, mixed: float
    ) -> tuple[Tensor, Tensor]:
        images = random_views(self._train.pictures[chosen], self.recipe.image_size, policy, generator)
        targets = smoothed(self._train.fine[chosen], FINE_CLASSES, self.recipe.smoothing)
        images, targets = mix_each(images, targets, mixed, generator)
        return images.contiguous(memory_format=torch.channels_last), targets

    def _mixed(self, usual: float, share: float) -> float:
        return 0.0 if share > 1 - self.recipe.plain_end else usual

    def _fit(
        self,
        stage: str,
        learners: list[Learner[Lesson]],
        make: Callable[[Tensor, torch.Generator, float], Lesson],
        schedule: Schedule,
        stopping: Callable[[], bool],
        saved: Callable[[float, int, float], None],
    ) -> None:
        fit_together(
            learners,
            make,
            schedule,
            len(self._train),
            self.device,
            self.place / f"{stage}.pt",
            resume=self.options.resume,
            report=lambda line: self.report({"stage": stage, **line}),
            saved=saved,
            stopping=stopping,
        )

    def _teach(self, weights: Path, stopping: Callable[[], bool]) -> Normalised:
        """Fine-tune the ImageNet Lite0 on the labels; returns the averaged network on the device."""
        recipe = self.recipe
        schedule = self._timed(recipe.teacher, recipe.teacher_share)
        torch.manual_seed(schedule.seed)
        network = lite.load_pretrained(read_checkpoint(weights), FINE_CLASSES)
        module = PartlyFrozen(network, recipe.frozen_blocks)
        module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        unasked = torch.empty(0, device=self.device)

        def make(chosen: Tensor, generator: torch.Generator, share: float) -> Lesson:
            mixed = self._mixed(recipe.teacher_mix, share)
            images, targets = self._views(chosen, generator, recipe.teacher_views, mixed)
            return Lesson(images, targets, unasked, unasked)

        learner: Learner[Lesson] = Learner(
            TEACHER,
            module,
            lambda forward, lesson: soft_cross_entropy(forward(lesson.images), lesson.targets),
            schedule,
            compiler=self._compiler,
        )

        def saved(share: float, views: int, seconds: float) -> None:
            network = averaged(learner)
            right = self._on_val(network, recipe.teacher_view)
            self.report({"stage": "teacher", "share": round(share, 3), "views": views, "val": right})
            notes = self._notes(share, views, seconds, right)
            save_network(self.place / "teacher.safetensors", network.network, {**self._facts, **notes})

        self._fit("teacher", [learner], make, schedule, stopping, saved)
        return averaged(learner)

    def _better(self, published: Normalised, fresh: Normalised) -> Normalised:
        """The teacher that validation prefers; a new one becomes one of the run's results."""
        known, new = (self._on_val(network, self.recipe.teacher_view) for network in (published, fresh))
        self.report({"stage": "teacher", "val published": known, "val new": new})
        if new < known:
            return published
        (self.place / "teacher.safetensors").replace(self._file(TEACHER))
        self._facts["teacher"] = "new"
        return fresh

    def _distil(self, answers_of: DeviceTeacher, stopping: Callable[[], bool]) -> None:
        """Teach all members from the same lessons."""
        recipe = self.recipe
        schedule = self._timed(recipe.distil, 1.0)
        torch.manual_seed(schedule.seed)

        def make(chosen: Tensor, generator: torch.Generator, share: float) -> Lesson:
            mixed = self._mixed(recipe.student_mix, share)
            images, targets = self._views(chosen, generator, recipe.student_views, mixed)
            return Lesson(images, targets, *answers_of(images))

        def loss_of(forward: Callable[..., tuple[Tensor, Tensor, Tensor]], lesson: Lesson) -> Tensor:
            answer, guess, maps = forward(lesson.images)
            taught = soft_target_loss(answer, lesson.logits, recipe.temperature)
            labelled = soft_cross_entropy(answer, lesson.targets)
            return (
                (1 - recipe.label_share) * taught
                + recipe.label_share * labelled
                + recipe.feature_weight * feature_loss(guess, lesson.maps.mean((2, 3)))
                + recipe.map_weight * feature_loss(maps, lesson.maps)
            )

        learners = [
            Learner(member, self._student(member), loss_of, schedule, compiler=self._compiler)
            for member in recipe.members
        ]

        def saved(share: float, views: int, seconds: float) -> None:
            for learner in learners:
                network = averaged(learner)
                right = self._on_val(network, recipe.student_view)
                self.report({"stage": learner.name, "share": round(share, 3), "views": views, "val": right})
                notes = self._notes(share, views, seconds, right)
                save_network(self._file(learner.name), network.network, {**self._facts, **notes})

        self._fit("students", learners, make, schedule, stopping, saved)

    def _student(self, member: str) -> nn.Module:
        variant = fasternet.VARIANTS[member]
        network = fasternet.FasterNet(variant, FINE_CLASSES, drop_path=0.0)
        student = HintedStudent(
            Normalised(network, fasternet.MEAN, fasternet.STD), variant.feature_dim, variant.width
        )
        return student.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def averaged(learner: Learner[Lesson]) -> Normalised:
    """A learner's network with its averaged weights, in eval mode, on its device."""
    module = copy.deepcopy(learner.module)
    module.load_state_dict(learner.average.state)
    network = module.normalised if isinstance(module, HintedStudent) else module
    assert isinstance(network, Normalised)
    return network.eval().requires_grad_(False)


def command(options: TrainOptions) -> str:
    """The command line of a run, for its manifests."""
    parts = ["nonet train fasternet --preset patient", f"--seed {options.seed}", f"--device {options.device}"]
    if options.minutes:
        parts.append(f"--minutes {options.minutes:g}")
    if options.weights is not None:
        parts.append(f"--weights {options.weights.name}")
    if options.variant is not None:
        parts.append(f"--variant {options.variant}")
    if options.compiled:
        parts.append("--compile")
    return " ".join(parts)
