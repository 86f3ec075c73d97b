"""The flow's path and times, and the samplers on flows whose true velocity is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nonet.research.snapgen import flow, sampling

SHAPE = (4, 3, 5)


def batch(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    picture, noise = (torch.randn((count, *SHAPE), generator=generator, dtype=torch.float64) for _ in "xe")
    return picture, noise, torch.rand(count, generator=generator, dtype=torch.float64)


def test_both_ends_are_recovered_from_any_point_and_its_velocity() -> None:
    picture, noise, time = batch()
    point, velocity = flow.at(picture, noise, time), flow.velocity(picture, noise)
    torch.testing.assert_close(flow.picture_of(point, velocity, time), picture)
    torch.testing.assert_close(flow.noise_of(point, velocity, time), noise)
    assert torch.equal(flow.at(picture, noise, torch.zeros(3)), picture)
    assert torch.equal(flow.at(picture, noise, torch.ones(3)), noise)
    later = flow.at(picture, noise, time + 1e-3)
    torch.testing.assert_close((later - point) / 1e-3, velocity)


@given(st.floats(0.01, 0.99), st.floats(0.1, 20))
def test_a_shift_adds_its_logarithm_to_the_logit(time: float, shift: float) -> None:
    moved = flow.shifted(torch.tensor(time, dtype=torch.float64), shift)
    expected = math.log(time / (1 - time)) + math.log(shift)
    assert torch.logit(moved).item() == pytest.approx(expected, abs=1e-9)


def test_eight_steps_with_shift_three_are_those_of_the_paper() -> None:
    expected = [1, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3, 0]
    assert flow.schedule(8, 3.0).tolist() == pytest.approx(expected, abs=5e-5)
    assert flow.schedule(8).tolist() == pytest.approx([1 - step / 8 for step in range(9)])
    assert flow.resolution_shift(128 * 128, 32 * 32) == 4.0


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_a_shift_that_is_no_positive_number_is_refused(shift: float) -> None:
    with pytest.raises(ValueError, match="shift"):
        flow.shifted(torch.tensor(0.5), shift)


def test_sampling_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="one step"):
        flow.schedule(0)


def test_times_for_training_have_the_quantiles_of_the_logit_normal() -> None:
    times = flow.logit_normal_times(200_000, generator=torch.Generator().manual_seed(0))
    found = torch.quantile(times, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert found.tolist() == pytest.approx([0.1618, 0.3375, 0.5, 0.6625, 0.8382], abs=0.005)


def test_euler_with_the_true_velocity_of_one_sample_is_exact_in_one_step_and_in_any() -> None:
    picture, noise, _ = batch()
    for steps, shift in ((1, 1.0), (1, 3.0), (7, 3.0)):
        found = sampling.euler(lambda x, t: noise - picture, noise, steps, shift)
        torch.testing.assert_close(found, picture)


def test_euler_asks_at_the_times_of_the_schedule_and_never_at_zero() -> None:
    asked: list[list[float]] = []

    def velocity(latents: Tensor, time: Tensor) -> Tensor:
        asked.append(time.tolist())
        return torch.zeros_like(latents)

    sampling.euler(velocity, torch.zeros(2, *SHAPE), 4, 3.0)
    assert asked == [pytest.approx([time] * 2) for time in flow.schedule(4, 3.0)[:-1].tolist()]


def test_few_steps_with_a_student_that_knows_the_picture_give_the_picture() -> None:
    picture = batch()[0].float()

    def velocity(latents: Tensor, time: Tensor) -> Tensor:
        return (latents - picture) / flow.per_sample(time, latents)

    for steps in (1, 4):
        found = sampling.few_step(velocity, SHAPE, sampling.SeededNoise([1, 2, 3]), steps)
        torch.testing.assert_close(found, picture, atol=1e-5, rtol=1e-5)


def test_a_seed_gives_its_picture_alone_and_in_any_batch() -> None:
    def velocity(latents: Tensor, time: Tensor) -> Tensor:
        return torch.sin(3 * latents) * flow.per_sample(time, latents)

    together = sampling.few_step(velocity, SHAPE, sampling.SeededNoise([5, 6, 7]), 4)
    alone = sampling.few_step(velocity, SHAPE, sampling.SeededNoise([6]), 4)
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


def test_guidance_leads_from_the_empty_text_through_the_text() -> None:
    def network(latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        counts.append(len(latents))
        return latents * (context * mask[:, :, None]).sum((1, 2))[:, None, None, None]

    counts: list[int] = []
    context, mask = torch.tensor([[[2.0], [9.0]], [[3.0], [9.0]]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    empty, empty_mask = torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]])
    latents, time = torch.ones(2, *SHAPE), torch.ones(2)
    for scale, expected in ((0.0, [1.0, 1.0]), (1.0, [2.0, 3.0]), (3.5, [4.5, 8.0])):
        velocity = sampling.guided(network, context, mask, empty, empty_mask, scale)
        assert velocity(latents, time)[:, 0, 0, 0].tolist() == expected
    assert counts == [4, 2, 4]
