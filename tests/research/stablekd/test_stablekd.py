"""Blocks, schedules and losses of StableKD keep their promises; no gradient crosses to another group."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.efficientnet_lite.network import EfficientNetLite0
from nonet.research.fasternet.network import FasterNet, Variant
from nonet.research.stablekd.blocks import Blocks, check_split, split_fasternet, split_lite
from nonet.research.stablekd.distillation import (
    Distillation,
    Weights,
    distribution_loss,
    normalised_error,
)
from nonet.research.stablekd.entanglement import measure
from nonet.research.stablekd.schedule import SCHEDULES, MergeSchedule, Phase, end_to_end, halving

CLASSES = 5


def chain(widths: tuple[int, ...], seed: int) -> Blocks:
    """Convolutional blocks with normalisations, the last with a classifier."""
    torch.manual_seed(seed)
    blocks: list[nn.Module] = []
    inside = 3
    for index, width in enumerate(widths):
        layers: list[nn.Module] = [
            nn.Conv2d(inside, width, 3, stride=1 + index % 2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if index == len(widths) - 1:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
        blocks.append(nn.Sequential(*layers))
        inside = width
    return Blocks(blocks)


def batch(seed: int = 0, count: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=rng), torch.randint(CLASSES, (count,), generator=rng)


def pair(same_widths: bool = True, **weights: float) -> Distillation:
    student = chain((8, 12, 12, 16) if same_widths else (6, 10, 8, 16), 1)
    return Distillation(chain((8, 12, 12, 16), 0), student, batch()[0], Weights(**weights))


@pytest.mark.parametrize("name", ["fasternet", "lite"])
def test_blocks_compute_what_the_network_does_and_own_each_parameter_once(name: str) -> None:
    torch.manual_seed(0)
    if name == "fasternet":
        network: nn.Module = FasterNet(Variant(16, (1, 1, 2, 1), "relu", 0.0, feature_dim=32), 7)
        blocks = split_fasternet(network.eval())  # type: ignore[arg-type]
    else:
        network = EfficientNetLite0(7)
        blocks = split_lite(network.eval())  # type: ignore[arg-type]
    images = torch.rand(2, 3, 64, 64)
    check_split(network, blocks.eval(), images)
    assert [each.shape[-1] for each in blocks.features(images)[1:4]] == [16, 8, 4]
    with pytest.raises(ValueError, match="do not compute"):
        check_split(network, Blocks(list(blocks.blocks)[:3]).eval(), images)


@given(st.integers(1, 9), st.sampled_from(sorted(SCHEDULES)))
def test_schedules_only_merge_and_end_with_the_whole(blocks: int, name: str) -> None:
    schedule = SCHEDULES[name](blocks)
    assert schedule.blocks == blocks
    seen = [schedule.at(share / 100) for share in range(101)]
    assert seen[-1] == (blocks,)
    sizes = [len(partition) for partition in seen]
    assert sizes == sorted(sizes, reverse=True)
    if blocks > 1 and name != "end_to_end":
        assert seen[0] == (1,) * blocks


@pytest.mark.parametrize(
    "phases",
    [
        [(0.5, (1, 1)), (0.4, (2,))],
        [(0.5, (2,)), (0.5, (1, 1))],
        [(0.5, (1, 2)), (0.5, (2, 1))],
        [(1.0, (1, 1))],
        [(0.5, (1, 1)), (0.5, (3,))],
        [],
    ],
)
def test_a_schedule_that_splits_or_does_not_add_up_is_refused(
    phases: list[tuple[float, tuple[int, ...]]],
) -> None:
    with pytest.raises(ValueError):
        MergeSchedule(tuple(Phase(*each) for each in phases))


@pytest.mark.parametrize("same_widths", [True, False])
def test_no_gradient_crosses_from_one_group_into_another(same_widths: bool) -> None:
    distillation = pair(same_widths).train()
    images, labels = batch()
    for partition in ((1, 1, 1, 1), (2, 2), (1, 3)):
        losses = distillation.losses(distillation.lesson(images), labels, partition)
        first = 0
        for size, loss in zip(partition, losses, strict=True):
            distillation.zero_grad(set_to_none=True)
            loss.backward(retain_graph=True)
            for index, block in enumerate(distillation.student.blocks):
                moved = any(
                    value.grad is not None and value.grad.abs().sum() > 0 for value in block.parameters()
                )
                assert moved == (first <= index < first + size)
            first += size


def test_one_group_without_feature_losses_is_plain_distillation() -> None:
    distillation = pair(beta=0.0).eval()
    images, labels = batch()
    lesson = distillation.lesson(images)
    loss = distillation(lesson, labels, (4,))
    logits = distillation.student(images)
    soft = functional.softmax(lesson[-1] / 4, 1)
    plain = 0.9 * 16 * (soft * (soft.log() - functional.log_softmax(logits / 4, 1))).sum(1).mean()
    plain = plain + 0.1 * functional.cross_entropy(logits, labels)
    assert torch.allclose(loss, plain, atol=1e-6)


def test_a_decomposed_step_is_each_block_trained_by_itself() -> None:
    together, apart = pair(), pair()
    whole = torch.optim.SGD(together.student.parameters(), 0.05, momentum=0.9)
    single = [torch.optim.SGD(block.parameters(), 0.05, momentum=0.9) for block in apart.student.blocks]
    for step in range(10):
        images, labels = batch(step)
        whole.zero_grad()
        together.train()(together.lesson(images), labels, (1, 1, 1, 1)).backward()
        whole.step()
        for index, optimiser in enumerate(single):
            optimiser.zero_grad()
            apart.train().losses(apart.lesson(images), labels, (1, 1, 1, 1))[index].backward()
            # each of the four passes moves the statistics of all blocks; only its own count
            optimiser.step()
    for (name, one), two in zip(together.student.named_parameters(), apart.student.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6), name


@pytest.mark.parametrize("partition", [(1, 1, 1, 1), (2, 2), (4,)])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(partition: tuple[int, ...]) -> None:
    teacher = chain((8, 12, 12, 16), 0).eval()
    distillation = Distillation(teacher, copy.deepcopy(teacher), batch()[0], Weights(alpha=1.0))
    distillation.student.eval().requires_grad_(True)
    images, labels = batch()
    loss = distillation(distillation.lesson(images), labels, partition)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert all(value.grad.abs().max() < 1e-6 for value in distillation.student.parameters())  # type: ignore[union-attr]


@given(st.floats(0.01, 1000))
@settings(max_examples=20)
def test_the_feature_loss_does_not_depend_on_the_teachers_scale(scale: float) -> None:
    rng = torch.Generator().manual_seed(0)
    value, wanted = torch.rand(2, 3, 4, 4, generator=rng), torch.rand(2, 3, 4, 4, generator=rng)
    assert float(normalised_error(scale * value, scale * wanted)) == pytest.approx(
        float(normalised_error(value, wanted)), rel=1e-4
    )


def test_the_distribution_loss_keeps_its_gradient_over_temperatures() -> None:
    rng = torch.Generator().manual_seed(0)
    teacher, labels = torch.randn(4, CLASSES, generator=rng) * 0.2, torch.zeros(4, dtype=torch.long)
    norms = []
    for temperature in (4.0, 8.0, 16.0):
        logits = (torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(1)) * 0.2).requires_grad_()
        distribution_loss(logits, teacher, labels, Weights(alpha=1.0, temperature=temperature)).backward()
        norms.append(float(logits.grad.norm()))  # type: ignore[union-attr]
    assert max(norms) / min(norms) < 1.1


def test_decomposed_blocks_are_not_entangled_and_blocks_end_to_end_are() -> None:
    distillation = pair().train()
    batches = [(distillation.lesson(images), labels) for images, labels in (batch(seed) for seed in range(4))]
    state = copy.deepcopy(distillation.state_dict())
    alone = measure(distillation, batches, (1, 1, 1, 1), 0.1)
    whole = measure(distillation, batches, (4,), 0.1)
    assert alone.turn == pytest.approx((0, 0, 0, 0), abs=1e-9)
    assert min(whole.turn[:3]) > 1e-4
    assert all(noise > 0 for noise in (*alone.noise, *whole.noise))
    assert all(torch.equal(value, state[name]) for name, value in distillation.state_dict().items())


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks"):
        Distillation(chain((8, 12), 0), chain((8, 12, 16), 0), batch()[0])
    distillation = pair()
    lesson = distillation.lesson(batch()[0])
    with pytest.raises(ValueError, match="partition"):
        distillation(lesson, batch()[1], (1, 1))
    for wrong in ({"alpha": 1.1}, {"temperature": 0.0}, {"beta": -1.0}):
        with pytest.raises(ValueError):
            Weights(**wrong)
    assert halving(1) == end_to_end(1)
