"""Training in sittings: the same whether interrupted or not, and better for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.config import UNetConfig
from nonet.research.snapgen.diffusing import HeldLoss, task_loss_of
from nonet.research.snapgen.few_step_training import FewStepStudent, few_step_loss_of
from nonet.research.snapgen.learning import Pace, Training, inner_matrix, orthogonal
from nonet.research.snapgen.student_training import Student, student_loss_of
from nonet.research.snapgen.teacher import Teacher, TeacherConfig
from nonet.research.snapgen.unet import UNet
from tests.support.packed_emoji import pack_made_up

TINY = TeacherConfig(width=32, layers=2, head_dim=16, patch=1)
PACE = Pace(batch=8, parts=2, rate=3e-3, muon_rate=5e-3, warmup=5, average=0.9)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return Bank(pack_made_up(tmp_path_factory.mktemp("packed")))


def teacher_training(bank: Bank, folder: Path, pace: Pace = PACE) -> Training:
    torch.manual_seed(0)
    teacher = Teacher(TINY)
    return Training(teacher, task_loss_of(teacher, bank, pace.batch, pace.drop), pace, folder)


def test_a_resumed_training_equals_an_uninterrupted_one(bank: Bank, tmp_path: Path) -> None:
    whole = teacher_training(bank, tmp_path / "whole")
    whole.sit(steps=8)
    teacher_training(bank, tmp_path / "parts").sit(steps=3)
    torch.manual_seed(7)  # whatever else was drawn in between does not count
    second = teacher_training(bank, tmp_path / "parts")
    assert second.resume()
    second.sit(steps=5)
    assert (second.step, second.samples) == (8, 128)
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name]), name
    for name, value in whole.average.state.items():
        assert torch.equal(value, second.average.state[name]), name


def test_the_loss_on_what_is_held_back_falls_and_is_logged(bank: Bank, tmp_path: Path) -> None:
    training = teacher_training(bank, tmp_path)
    held = HeldLoss(bank).of_weights(training.module)
    before = held(training.average.state)["held"]
    training.sit(steps=60, judge=held, judge_every=0.0)
    assert held(training.average.state)["held"] < 0.6 * before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("held" in line for line in lines)
    assert lines[-1]["samples"] == 60 * 16


def test_the_last_sitting_lets_the_rate_fall_to_nothing(bank: Bank, tmp_path: Path) -> None:
    training = teacher_training(bank, tmp_path)
    training.sit(steps=4)
    assert training.decayed == 0
    training.sit(steps=10, decay=True)
    assert training.decayed == pytest.approx(0.9)
    again = teacher_training(bank, tmp_path)
    again.resume()
    again.sit(steps=10, decay=True)  # goes on falling from there
    assert again.decayed == pytest.approx(0.99)


def test_a_loss_that_is_no_number_ends_the_training_and_leaves_the_checkpoint(
    bank: Bank, tmp_path: Path
) -> None:
    training = teacher_training(bank, tmp_path)
    training.sit(steps=2)
    with torch.no_grad():
        next(training.module.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="step 3"):
        training.sit(steps=2, report_every=0.0)
    kept = teacher_training(bank, tmp_path)
    kept.resume()
    assert all(value.isfinite().all() for value in kept.module.state_dict().values())


def test_a_sitting_has_one_length(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="minutes or some steps"):
        teacher_training(bank, tmp_path).sit()


def test_what_a_signal_stops_is_saved(bank: Bank, tmp_path: Path) -> None:
    asked = iter([False, False, False, True])
    training = teacher_training(bank, tmp_path)
    training.sit(steps=100, stopping=lambda: next(asked))
    again = teacher_training(bank, tmp_path)
    assert again.resume()
    assert again.step == 3


def test_updates_of_matrices_are_nearly_orthogonal() -> None:
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0))
    for made in (orthogonal(matrices), orthogonal(matrices.transpose(1, 2))):
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.6
        assert values.max() < 1.3


def padded_text(rows: int) -> tuple[Tensor, Tensor]:
    mask = (torch.arange(6) < torch.tensor([[3], [6]])).float()[:rows]
    return torch.randn(rows, 6, 384, generator=torch.Generator().manual_seed(1)), mask


def test_padding_of_a_text_changes_nothing() -> None:
    torch.manual_seed(0)
    teacher = Teacher(TINY).eval()
    for value in teacher.parameters():
        nn.init.normal_(value, std=0.05)
    latents, time = torch.randn(2, 32, 2, 4), torch.tensor([0.3, 0.8])
    context, mask = padded_text(2)
    with torch.no_grad():
        expected = teacher(latents, time, context, mask)
        other = context.clone()
        other[0, 3:] = 100.0
        assert torch.allclose(teacher(latents, time, other, mask), expected, atol=1e-5)
        shorter = teacher(latents[:1], time[:1], context[:1, :3], mask[:1, :3])
        assert torch.allclose(shorter, expected[:1], atol=1e-5)
        said = context.clone()
        said[0, 1] = -said[0, 1]
        assert not torch.allclose(teacher(latents, time, said, mask)[0], expected[0], atol=1e-4)


def test_a_teacher_that_knows_nothing_yet_gives_no_velocity() -> None:
    context, mask = padded_text(2)
    found = Teacher(TINY)(torch.randn(2, 32, 2, 2), torch.rand(2), context, mask)
    assert torch.equal(found, torch.zeros_like(found))


def test_dropped_captions_are_the_encoders_answer_to_nothing(bank: Bank) -> None:
    drawn = bank.draw(16, torch.Generator().manual_seed(0), drop=1.0)
    nothing, mask = bank.texts(torch.tensor([bank.nothing]))
    assert torch.equal(drawn.context, nothing.expand(16, -1, -1))
    assert torch.equal(drawn.mask[:1], mask)


def test_only_examples_of_the_training_are_drawn(bank: Bank) -> None:
    drawn = bank.draw(400, torch.Generator().manual_seed(0))
    assert {bank.examples[int(i)]["part"] for i in drawn.examples} == {"train"}


CONFIG = UNetConfig(
    latent_channels=32,
    channels=(32, 32),
    transformer_layers=(1, 1),
    self_attention=(False, True),
    context_width=384,
    head_dim=16,
    groups=8,
)


def task_losses(training: Training, steps: int) -> list[float]:
    lines: list[dict[str, float]] = []
    training.sit(steps=steps, report=lines.append, report_every=0.0)
    return [line["task"] for line in lines]


def frozen_teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(TINY).eval().requires_grad_(False)


def test_a_student_learns_from_its_teacher_and_the_teacher_stays(bank: Bank, tmp_path: Path) -> None:
    teacher = frozen_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = Student(UNet(CONFIG), TINY.width)
    pace = Pace(batch=8, parts=1, rate=2e-3, muon_rate=2e-3, warmup=5)
    training = Training(student, student_loss_of(student, teacher, bank, 8, 0.1), pace, tmp_path)
    losses = task_losses(training, 20)
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_few_step_training_moves_student_and_heads_and_not_their_teacher(bank: Bank, tmp_path: Path) -> None:
    teacher = frozen_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    few = FewStepStudent(UNet(CONFIG), teacher)
    heads = {name: value.clone() for name, value in few.discriminator.heads.state_dict().items()}
    pace = Pace(batch=8, parts=1, rate=2e-3, warmup=1)
    training = Training(few, few_step_loss_of(few, teacher, bank, 8, 4), pace, tmp_path)
    started = few.unet.conv_out.weight.detach().clone()
    task_losses(training, 4)
    assert not torch.equal(few.unet.conv_out.weight, started)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    moved = few.discriminator.heads.state_dict()
    assert not any(torch.equal(moved[name], value) for name, value in heads.items() if "weight" in name)


def test_inner_matrices_are_those_of_blocks_alone() -> None:
    student = Student(UNet(CONFIG), TINY.width)
    inner = {name for name, value in student.named_parameters() if inner_matrix(name, value)}
    assert {
        "unet.down.0.pairs.0.res.conv1.pointwise.weight",
        "unet.mid_transformer.linear_in.weight",
    } <= inner
    assert not any("time" in name or "depthwise" in name or "conv_in" in name for name in inner)
    of_teacher = {name for name, value in Teacher(TINY).named_parameters() if inner_matrix(name, value)}
    assert len(of_teacher) == 5 * TINY.layers
