"""Training promises: a resumed run repeats an unbroken one, views keep their range, lessons are reused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nonet.research.fasternet.augment import ViewPolicy, beta, mix, random_views
from nonet.research.fasternet.bank import Lesson, LessonBank
from nonet.research.fasternet.distillation import soft_cross_entropy, soft_target_loss
from nonet.research.fasternet.training import Order, Schedule, fit, load_checkpoint, save_checkpoint

SCHEDULE = Schedule(steps=8, batch=4, lr=1e-2, warmup=2, ema=0.9, seed=3, bfloat16=False)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def run(
    path: Path, *, stop_after: int | None = None, resume: bool = False, schedule: Schedule = SCHEDULE
) -> tuple[nn.Module, dict[str, Tensor]]:
    pictures = torch.randint(0, 256, (19, 3, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(1))
    labels = nn.functional.one_hot(torch.arange(19) % 5, 5).float()
    network, order = small_network(), Order(19, 4, schedule.seed)
    policy = ViewPolicy(mix_probability=0.7)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        chosen = order.at(step)
        images = random_views(pictures[chosen], 8, policy, generator)
        images, targets = mix(images, labels[chosen], policy, generator)
        return soft_cross_entropy(network(images), targets)

    average = fit(network, loss_of, schedule, path, resume=resume, stop_after=stop_after)
    return network, average.state


def test_interrupted_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    whole, whole_average = run(tmp_path / "whole.pt")
    for _ in range(3):
        parts, parts_average = run(tmp_path / "parts.pt", stop_after=3, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    for name, value in whole_average.items():
        assert torch.equal(parts_average[name], value), name


def test_a_finished_run_resumes_to_itself_without_a_step(tmp_path: Path) -> None:
    _, first = run(tmp_path / "run.pt")
    _, again = run(tmp_path / "run.pt", resume=True)
    assert all(torch.equal(first[name], value) for name, value in again.items())


def test_resuming_with_another_schedule_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run.pt", stop_after=2)
    with pytest.raises(ValueError, match="another schedule"):
        run(tmp_path / "run.pt", resume=True, schedule=replace(SCHEDULE, lr=1.0))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    network = small_network()
    with pytest.raises(FloatingPointError, match="step 1"):
        fit(network, lambda step, generator: network(torch.zeros(2, 3, 8, 8)).sum() * float("nan"),
            SCHEDULE, tmp_path / "run.pt")  # fmt: skip


def test_accumulated_pieces_equal_one_large_batch(tmp_path: Path) -> None:
    data = torch.randn(8, 6, generator=torch.manual_seed(2))
    results = []
    for pieces in (1, 4):
        torch.manual_seed(0)
        network = nn.Linear(6, 1)
        size = 8 // pieces

        def loss_of(
            piece: int, generator: torch.Generator, network: nn.Module = network, size: int = size
        ) -> Tensor:
            start = (piece * size) % 8
            return network(data[start : start + size]).square().mean()

        fit(network, loss_of, SCHEDULE, tmp_path / f"{pieces}.pt", accumulate=pieces)
        results.append(network.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_never_holds_code_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"step": 1, "weights": torch.ones(2)})
    save_checkpoint(path, {"step": 2, "weights": torch.zeros(2)})
    assert load_checkpoint(path)["step"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_the_rate_rises_then_falls_to_its_end(minutes: float) -> None:
    schedule = Schedule(steps=100, lr=1.0, min_lr=0.1, start_lr=0.0, warmup=10, minutes=minutes)
    rates = [schedule.lr_at(step) for step in range(101)]
    assert rates[9] == max(rates) == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.1)


def test_wall_time_ends_a_stage_that_has_a_limit() -> None:
    schedule = Schedule(steps=100, minutes=2)
    assert schedule.share_at(10, seconds=60) == 0.5
    assert schedule.share_at(80, seconds=60) == 0.8
    assert schedule.share_at(10, seconds=500) == 1.0
    assert schedule.lr_at(10, seconds=1e9) == 1e-6 + (1e-3 - 1e-6) * 0.11  # still in warm-up
    assert Schedule(steps=100).share_at(10, seconds=1e9) == 0.1


@given(count=st.integers(1, 50), batch=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_an_epoch_shows_no_picture_twice(count: int, batch: int, seed: int) -> None:
    if count < batch:
        with pytest.raises(ValueError, match="do not fill"):
            Order(count, batch, seed)
        return
    order = Order(count, batch, seed)
    shown = torch.cat([order.at(step) for step in range(order.per_epoch)])
    assert len(set(shown.tolist())) == len(shown) == order.per_epoch * batch
    assert torch.equal(Order(count, batch, seed).at(order.per_epoch), order.at(order.per_epoch))


@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([8, 16, 24]),
    policy=st.builds(
        ViewPolicy,
        min_area=st.floats(0.1, 1.0),
        rotation=st.floats(0, 45),
        colour=st.floats(0, 0.9),
        mix_probability=st.sampled_from([0.0, 1.0]),
        mixup_alpha=st.floats(0.05, 1.0),
        cutmix_alpha=st.floats(0.05, 1.0),
    ),
)
@settings(max_examples=40, deadline=None)
def test_views_stay_in_range_and_mixed_labels_stay_distributions(
    seed: int, size: int, policy: ViewPolicy
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=generator)
    views = random_views(pictures, size, policy, generator)
    images, targets = mix(views, torch.eye(5), policy, generator)
    assert images.shape == (5, 3, size, size)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    torch.testing.assert_close(targets.sum(1), torch.ones(5))
    again = torch.Generator().manual_seed(seed)
    torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=again)
    assert torch.equal(random_views(pictures, size, policy, again), views)


def test_cutmix_weight_is_the_share_of_pixels() -> None:
    policy = ViewPolicy(mix_probability=1.0)
    images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 10, 10).contiguous()
    seen = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        mixed, targets = mix(images, torch.eye(2), policy, generator)
        # In both kinds, the mean of a blend of a picture of 0 and one of 1 is the weight of the 1.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1], rtol=1e-5, atol=1e-5)
        seen += len(mixed[0].unique()) > 1
    assert seen > 5


def test_beta_has_the_right_mean_and_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([beta(generator, 0.4) for _ in range(3000)])
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(draws.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)


def test_bank_asks_the_teacher_once_per_lesson_and_a_resumed_bank_agrees() -> None:
    calls = []

    def make(chosen: Tensor, generator: torch.Generator) -> Lesson:
        calls.append(chosen.tolist())
        images = torch.rand(len(chosen), 3, 8, 8, generator=generator)
        return Lesson(images, torch.eye(4), torch.rand(4, 2, generator=generator), torch.eye(4))

    order = Order(9, 4, 0)  # 2 batches an epoch
    bank = LessonBank(order, make, passes=2, size=8)
    first = [bank.at(step, torch.Generator().manual_seed(step)) for step in range(4)]
    later = [bank.at(step, torch.Generator().manual_seed(step)) for step in range(4, 12)]
    assert len(calls) == 4
    kept = {tuple(lesson.logits.flatten().tolist() + lesson.features.flatten().tolist()) for lesson in first}
    for round_ in (later[:4], later[4:]):
        assert {
            tuple(lesson.logits.flatten().tolist() + lesson.features.flatten().tolist()) for lesson in round_
        } == kept
    resumed = LessonBank(order, make, passes=2, size=8).at(7, torch.Generator().manual_seed(7))
    assert torch.equal(resumed.images, later[3].images)


def test_soft_target_loss_is_zero_for_equal_answers_and_positive_otherwise() -> None:
    a, b = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 1.0, 0.0]])
    assert float(soft_target_loss(a, a + 5, 2.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(soft_target_loss(a, b, 2.0)) > 0.1
