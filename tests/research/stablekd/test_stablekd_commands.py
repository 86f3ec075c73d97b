"""`nonet train stablekd` distils a FasterNet from a published teacher and publishes only what is better."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from nonet.research.fasternet.distillation import Normalised
from nonet.research.fasternet.grocery import model_name
from nonet.research.fasternet.network import MEAN, STD, build
from nonet.research.stablekd.commands import train
from nonet.research.stablekd.distillation import Distillation
from nonet.research.stablekd.grocery import blocks_of
from nonet.research.stablekd.pictures import DATA, Pictures
from nonet.research.stablekd.pilot import (
    ARMS,
    accuracy,
    distil,
    residual_teacher,
    separable_student,
    train_teacher,
)
from nonet.research.systems import TrainOptions
from nonet.runtime.errors import InvalidArgument

ROOT = Path(__file__).parents[3]


def test_a_student_worse_than_the_published_one_is_not_published(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    for name in ("efficientnet_lite0_grocery", "fasternet_nano_grocery"):
        shutil.copytree(ROOT / "model_repository" / name, repository / name)
    train(
        TrainOptions(
            preset="tiny", repository=repository, runs=tmp_path / "runs", data=data_root, minutes=0.05
        )
    )
    said = capsys.readouterr().out
    assert "not published" in said
    assert [each.name for each in (repository / model_name("nano")).iterdir() if each.is_dir()] == ["1"]
    assert (tmp_path / "runs" / "nano.pt").is_file()


def test_blocks_of_a_normalised_network_compute_what_it_does() -> None:
    torch.manual_seed(0)
    network = Normalised(build("nano", 5), MEAN, STD).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(images), blocks_of(network).eval()(images))


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="unknown variant"):
        train(TrainOptions(preset="tiny", repository=tmp_path, runs=tmp_path, variant="t9", data=tmp_path))


def test_the_pair_of_the_study_has_the_stated_sizes_and_learns() -> None:
    assert sum(each.numel() for each in residual_teacher().parameters()) == pytest.approx(257_000, rel=0.02)
    assert sum(each.numel() for each in separable_student().parameters()) == pytest.approx(52_800, rel=0.02)
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(20)
    images = torch.rand(10, 3, 32, 32, generator=rng)[labels] + 0.1 * torch.rand(
        200, 3, 32, 32, generator=rng
    )
    pictures = Pictures(images, labels)
    teacher = train_teacher(pictures, 30, 0)
    assert accuracy(teacher, pictures) > 60
    first, second = (distil(ARMS[4], teacher, pictures, 6, 0.1, 0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("name", sorted(DATA))
def test_the_parts_of_a_set_are_even_and_share_no_picture(name: str, data_root: Path) -> None:
    parts = DATA[name](data_root)
    seen = {part: {each.numpy().tobytes() for each in pictures.images} for part, pictures in parts.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]
    for pictures in parts.values():
        counts = torch.bincount(pictures.labels)
        assert counts.min() == counts.max()
        assert pictures.images.shape[1:] == (3, 32, 32)


def test_hints_teach_the_first_half_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    pictures = Pictures(torch.rand(100, 3, 32, 32, generator=rng), torch.arange(10).repeat(10))
    seen: list[list[torch.Tensor]] = []

    def watched(step: int, distillation: Distillation) -> None:
        seen.append([next(block.parameters()).detach().clone() for block in distillation.student.blocks])

    hinting = dataclasses.replace(ARMS[2], hinted=0.5)
    distil(hinting, residual_teacher().eval(), pictures, 4, 0.1, 0, watched=watched)
    moved = [[not torch.equal(a, b) for a, b in zip(x, y, strict=True)] for x, y in pairwise(seen)]
    assert moved == [[True, True, False, False], [True, True, False, False], [True, True, True, True]]
