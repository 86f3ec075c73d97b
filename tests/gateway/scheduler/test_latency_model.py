"""The latency model: exact at its points, monotone between them, corrected by what happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.scheduler import LatencyModel

profiles = st.dictionaries(st.integers(1, 64), st.floats(1e-4, 10.0), min_size=1, max_size=6)


def test_unknown_model_predicts_nothing_and_learns_from_the_first_batch() -> None:
    model = LatencyModel()
    assert not model.known
    assert model.predict(4, 0.0) == 0.0
    model.observe(4, 0.2, 0.0)
    assert model.known
    assert model.predict(4, 0.0) == pytest.approx(0.2)
    assert model.predict(8, 0.0) == pytest.approx(0.4)


def test_interpolates_between_points_and_grows_in_proportion_beyond_them() -> None:
    model = LatencyModel({1: 0.010, 8: 0.045})
    assert model.predict(1, 0.0) == pytest.approx(0.010)
    assert model.predict(8, 0.0) == pytest.approx(0.045)
    assert model.predict(4, 0.0) == pytest.approx(0.025)
    assert model.predict(16, 0.0) == pytest.approx(0.090)


def test_sixty_times_the_work_is_predicted_to_take_sixty_times_as_long_unlearnt() -> None:
    model = LatencyModel({1: 0.1})
    assert model.predict(60.0, 0.0) == pytest.approx(6.0)


@pytest.mark.parametrize("profile", [{1: 0.1}, {}], ids=["measured", "not measured"])
def test_what_is_learnt_from_large_requests_does_not_spoil_small_ones(profile: dict[int, float]) -> None:
    model = LatencyModel(profile)
    for _ in range(40):
        model.observe(60.0, 1.5, 0.0)
    assert model.predict(60.0, 0.0) == pytest.approx(1.5, rel=0.1)
    assert model.predict(1.0, 0.0) == pytest.approx(0.1 if profile else 1.5 / 60, rel=0.1)
    for _ in range(40):
        model.observe(1.0, 0.2, 0.0)
    assert model.predict(1.0, 0.0) == pytest.approx(0.2, rel=0.1)
    assert model.predict(60.0, 0.0) == pytest.approx(1.5, rel=0.1)


@given(profiles, st.integers(1, 128), st.integers(1, 128))
def test_more_rows_never_take_less_time(profile: dict[int, float], first: int, second: int) -> None:
    model = LatencyModel(profile)
    small, large = sorted((first, second))
    assert model.predict(small, 0.0) <= model.predict(large, 0.0) + 1e-12


def test_correction_converges_to_reality_and_one_stall_does_not_shut_the_door() -> None:
    model = LatencyModel({1: 0.01, 8: 0.08})
    model.observe(8, 60.0, 0.0)
    assert model.predict(8, 0.0) <= 0.08 * 1.5
    for _ in range(100):
        model.observe(4, 0.08, 0.0)
    assert model.predict(4, 0.0) == pytest.approx(0.08, rel=0.05)


def test_what_made_a_model_look_slow_fades_while_it_idles() -> None:
    measured, learnt = LatencyModel({1: 0.02}), LatencyModel()
    for model in (measured, learnt):
        for _ in range(60):
            model.observe(1, 2.0, 100.0)
        assert model.predict(1, 100.0) > 0.09
    assert measured.predict(1, 200.0) == pytest.approx(0.02, rel=0.01)
    assert learnt.predict(1, 200.0) < 0.001
    assert measured.predict(1, 100.0) > measured.predict(1, 105.0) > 0.02


@given(profiles, st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 1e4)), max_size=30))
def test_predictions_stay_finite_and_positive(
    profile: dict[int, float], seen: list[tuple[int, float]]
) -> None:
    model = LatencyModel(profile)
    for rows, seconds in seen:
        model.observe(rows, seconds, 0.0)
    assert 0.0 < model.predict(3, 0.0) < 1e6


@pytest.mark.parametrize("profile", [{0: 0.1}, {1: 0.0}, {1: -1.0}])
def test_refuses_an_impossible_profile(profile: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="rows >= 1"):
        LatencyModel(profile)
