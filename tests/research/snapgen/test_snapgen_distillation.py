"""Losses of distillation: what they are worth, where their gradients go, and what the adversary may touch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nonet.research.snapgen import distillation, flow, step_distillation
from nonet.research.snapgen.step_distillation import Discriminator, noised_again

TIMES = torch.tensor([0.02, 0.1, 0.2, 0.3, 0.5])


def test_the_weight_of_pictures_is_the_density_of_times_with_peak_one() -> None:
    weights = distillation.picture_weight(TIMES)
    assert weights.tolist() == pytest.approx([0.0066, 0.2485, 0.5977, 0.8314, 1.0], abs=5e-5)
    torch.testing.assert_close(distillation.picture_weight(1 - TIMES), weights)
    ends = distillation.picture_weight(torch.tensor([0.0, 1.0]))
    assert ends.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def student_and_losses() -> tuple[Tensor, Tensor, Tensor]:
    """A student's output, its loss against the data and its loss against a teacher, both (5,)."""
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(5, 6, generator=generator, requires_grad=True)
    data, teacher = torch.randn(2, 5, 6, generator=generator)
    return (
        student,
        distillation.per_sample_error(student, data),
        distillation.per_sample_error(student, teacher),
    )


def test_the_scaled_loss_is_worth_the_task_loss_of_each_sample() -> None:
    _, task, teacher = student_and_losses()
    torch.testing.assert_close(distillation.timestep_aware(task, teacher, TIMES), task)


def test_the_scaled_loss_mixes_gradients_by_weight_and_ratio_of_each_sample() -> None:
    student, task, teacher = student_and_losses()
    by_task = torch.autograd.grad(task.sum(), student, retain_graph=True)[0]
    by_teacher = torch.autograd.grad(teacher.sum(), student, retain_graph=True)[0]
    found = torch.autograd.grad(distillation.timestep_aware(task, teacher, TIMES).sum(), student)[0]
    weight = distillation.picture_weight(TIMES)[:, None]
    ratio = (task / teacher).detach()[:, None]
    assert ratio.max() / ratio.min() > 1.2  # a ratio of the batch's means would differ
    torch.testing.assert_close(found, weight * by_task + (1 - weight) * ratio * by_teacher)


def test_with_a_ratio_that_has_a_gradient_the_teacher_would_give_none() -> None:
    student, task, teacher = student_and_losses()
    attached = (task.abs() / teacher.abs()) * teacher
    by_task = torch.autograd.grad(task.sum(), student, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(attached.sum(), student)[0], by_task)


def test_a_student_equal_to_its_teacher_gets_no_gradient_from_it_and_no_nan() -> None:
    student = torch.randn(5, 6, requires_grad=True)
    teacher = distillation.per_sample_error(student, student.detach())
    loss = distillation.timestep_aware(torch.ones(5), teacher, TIMES).sum()
    gradient = torch.autograd.grad(loss, student)[0]
    assert torch.isfinite(loss)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_multi_level_loss_is_the_sum_of_both_scaled_losses() -> None:
    generator = torch.Generator().manual_seed(4)
    prediction, teacher, picture, noise = torch.randn(4, 5, 3, 4, 4, generator=generator)
    projector = distillation.FeatureProjector(6, 8)
    student_features = torch.randn(5, 6, 2, 3, generator=generator)
    teacher_features = torch.randn(5, 8, 4, 4, generator=generator)
    projected = projector(student_features, (4, 4))
    assert projected.shape == teacher_features.shape
    levels = distillation.multi_level(
        prediction, teacher, picture, noise, TIMES, (projected, teacher_features)
    )
    task = distillation.task_loss(prediction, picture, noise)
    torch.testing.assert_close(levels.total(), 2 * task.mean())
    levels.total().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in projector.parameters())
    without = distillation.multi_level(prediction, teacher, picture, noise, TIMES)
    torch.testing.assert_close(without.total(), task.mean())


def test_the_plain_mix_weighs_as_told() -> None:
    found = distillation.fixed_weight(torch.tensor([1.0]), torch.tensor([3.0]), 0.25)
    assert found.tolist() == [1.5]


def test_hinge_and_non_saturating_losses_at_known_logits() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    assert step_distillation.HINGE.discriminator(real, fake).item() == pytest.approx(0.25 + 0.5)
    assert step_distillation.HINGE.generator(fake).item() == pytest.approx(1.0)
    zero = torch.zeros(3)
    log_two = 0.693147
    soft = step_distillation.NON_SATURATING
    assert soft.discriminator(zero, zero).item() == pytest.approx(2 * log_two, abs=1e-5)
    assert soft.generator(zero).item() == pytest.approx(log_two, abs=1e-5)


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.drop = nn.Dropout(0.9)

    def forward(self, latents: Tensor) -> list[Tensor]:
        first = self.drop(self.conv(latents))
        return [first, nn.functional.avg_pool2d(first.tanh(), 2)]


def discriminator() -> Discriminator:
    torch.manual_seed(5)
    return Discriminator(Trunk(), lambda trunk, latents, time, context, mask: trunk(latents), [8, 8], 16)


def test_the_trunk_stays_frozen_while_its_heads_and_its_input_learn() -> None:
    judge = discriminator().train()
    latents = torch.randn(2, 3, 4, 4, requires_grad=True)
    logits = judge(latents, torch.ones(2), torch.zeros(2, 1, 1), torch.ones(2, 1))
    assert logits.shape == (2, 16 + 4)
    assert not judge.trunk.training
    step_distillation.hinge_generator(logits).backward()
    assert all(value.grad is None and not value.requires_grad for value in judge.trunk.parameters())
    assert all(value.grad is not None for value in judge.heads.parameters())
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


def test_the_students_gradient_comes_back_through_the_noising() -> None:
    judge = discriminator()
    prediction = torch.randn(2, 3, 4, 4, requires_grad=True)
    point, picture = torch.randn(2, 2, 3, 4, 4)
    time, after = torch.tensor([1.0, 0.5]), torch.tensor([0.5, 0.25])
    noised = noised_again(point, prediction, time, picture, after)
    logits = judge(noised.fake, noised.time, torch.zeros(2, 1, 1), torch.ones(2, 1))
    (by_fake,) = torch.autograd.grad(logits.sum(), noised.fake, retain_graph=True)
    step_distillation.student_loss(logits, None, weight=-float(logits.numel())).backward()
    assert prediction.grad is not None
    torch.testing.assert_close(prediction.grad, -flow.per_sample(time * (1 - after), by_fake) * by_fake)
    assert not noised.real.requires_grad


def test_noised_again_to_time_zero_is_the_guess_itself() -> None:
    point, prediction, picture = torch.randn(3, 2, 3, 4, 4)
    time = torch.tensor([0.7, 0.2])
    noised = noised_again(point, prediction, time, picture, torch.zeros(2))
    assert torch.equal(noised.fake, flow.picture_of(point, prediction, time))
    assert torch.equal(noised.real, picture)


def test_times_of_the_student_are_those_of_its_sampler() -> None:
    time, after = step_distillation.step_times(200, 4, 3.0, torch.Generator().manual_seed(0))
    allowed = flow.schedule(4, 3.0).float()
    pairs = {(round(a, 5), round(b, 5)) for a, b in zip(time.tolist(), after.tolist(), strict=True)}
    expected = zip(allowed[:-1].tolist(), [*allowed[1:-1].tolist(), 0.01], strict=True)
    assert pairs == {(round(a, 5), round(b, 5)) for a, b in expected}


def test_the_students_loss_adds_the_levels_to_the_adversary() -> None:
    prediction, teacher, picture, noise = torch.randn(4, 5, 3, 4, 4)
    levels = distillation.multi_level(prediction, teacher, picture, noise, TIMES)
    logits = torch.tensor([[1.0, 3.0]])
    total = step_distillation.student_loss(logits, levels, weight=0.5)
    torch.testing.assert_close(total, levels.total() - 1.0)
