"""The number of floors that nobody gave: right where floors are clear, and said to be uncertain elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.research.fis_one.building import FitOptions, FloorLabel
from nonet.research.fis_one.data import SurveyedBuilding, load_building
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.floor_count import FloorCount, count_chances, estimate_floors
from nonet.research.fis_one.floor_evidence import (
    Evidence,
    gulf,
    nearest,
    separation,
)
from nonet.research.fis_one.loudness import SLAB, audible_readings
from nonet.research.fis_one.metrics import adjusted_rand, mean_agreement
from nonet.runtime.scans import Scans
from tests.support.synthetic_wifi import QUICK, made_up


def estimated(building: SurveyedBuilding, seed: int = 0, fewest: int = 2) -> FloorCount:
    return estimate_floors(building.scans, np.arange(len(building.scans)), seed, fewest)


def given_again(scans: Scans, times: int) -> Scans:
    """All scans, then every second one ``times`` over under new names."""
    rows = [
        [
            (scans.transmitters[scans.transmitter[at]], float(scans.rssi[at]))
            for at in range(scans.offsets[row], scans.offsets[row + 1])
        ]
        for row in range(len(scans))
    ]
    again = [(f"again {row} {time}", rows[row]) for row in range(0, len(rows), 2) for time in range(times)]
    return Scans.build([*zip(scans.ids, rows, strict=True), *again])


@pytest.mark.parametrize("per_floor", [(60, 60, 60), (30, 50, 35, 45, 30)])
def test_clear_floors_are_counted(per_floor: tuple[int, ...]) -> None:
    building = made_up(floors=len(per_floor), per_floor=per_floor, seed=len(per_floor))
    found = estimated(building)
    assert found.floors == len(per_floor)
    assert dict(found.chances)[found.floors] > 0.5
    assert sum(chance for _, chance in found.chances) == pytest.approx(1)
    assert [each.floors for each in found.evidence] == list(range(2, 13))


def test_scans_given_again_are_looked_at_once_and_the_answer_is_the_same_each_time() -> None:
    small = made_up(floors=2, per_floor=40)
    many = given_again(small.scans, 4)
    once, again = (estimate_floors(many, np.arange(len(many)), 0) for _ in range(2))
    assert once.floors == again.floors == estimated(small).floors == 2
    np.testing.assert_allclose(once.chances, again.chances, atol=0.02)


def test_one_hall_is_not_passed_off_as_several_floors_with_confidence() -> None:
    """Two is the fewest there may be, so a fit of one floor gets two; nothing but a warning can say so."""
    hall = made_up(floors=1, per_floor=80)
    fitted = fit_building(hall.scans, FloorLabel(hall.scans.ids[0], "F1"), FitOptions(), recipe=QUICK)
    count = fitted.facts["floor_count"]
    assert count["estimated"]
    assert count["floors"] == len(fitted.floors)
    assert any("one floor" in warning for warning in fitted.facts["warnings"])
    assert count["evidence"][0].keys() == {"floors", "probability", "agreement", "separation", "gulf"}


@pytest.mark.parametrize("missing", [0, 2])
def test_a_named_floor_without_scans_is_noticed(missing: int) -> None:
    whole = made_up(floors=5, per_floor=60)
    part = whole.take(np.flatnonzero(whole.floor != missing))
    lowest = int(part.floor.min())
    scan = part.scans.ids[int(np.flatnonzero(part.floor == lowest)[0])]
    names = FitOptions(names=whole.floors)
    fitted = fit_building(part.scans, FloorLabel(scan, whole.floors[lowest]), names, recipe=QUICK)
    assert not fitted.facts["floor_count"]["estimated"]
    assert any("fewer than 5 floors" in warning for warning in fitted.facts["warnings"])


def test_named_floors_that_all_have_scans_are_not_doubted() -> None:
    whole = made_up(floors=5, per_floor=60)
    told = fit_building(whole.scans, whole.label(0), FitOptions(names=whole.floors), recipe=QUICK)
    assert not any("fewer than" in warning for warning in told.facts["warnings"])


def test_numbers_that_were_not_considered_are_not_doubted() -> None:
    evidence = tuple(Evidence(each, 0.8, 14.0, 0.3) for each in range(2, 8))
    found = FloorCount(5, ((4, 0.3), (5, 0.6), (6, 0.1)), evidence)
    assert found.doubt(4) is None
    assert found.doubt(5) is None
    assert "90%" in (found.doubt(6) or "")
    assert found.doubt(8) is None
    assert FloorCount(2, ((2, 0.0),), ()).doubt(2) is None


def test_there_are_at_least_as_many_floors_as_the_label_says(building: SurveyedBuilding) -> None:
    label = dataclasses.replace(building.label(0, 3), position=6)
    fitted = fit_building(building.scans, label, FitOptions(), recipe=QUICK)
    assert len(fitted.floors) == 6


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_a_handful_of_scans_gets_an_answer_that_may_be_wrong(building: SurveyedBuilding, count: int) -> None:
    few = building.take(np.linspace(0, len(building.floor) - 1, count).astype(int))
    found = estimated(few)
    assert 1 <= found.floors <= count
    if count < 12:
        assert found.floors == min(2, count)
        assert found.warning is not None


figures = st.builds(
    Evidence,
    floors=st.just(0),
    agreement=st.floats(0, 1),
    separation=st.floats(0, SLAB),
    gulf=st.floats(-1, 1),
)


@given(rows=st.lists(figures, min_size=2, max_size=11), fewest=st.integers(2, 12))
def test_probabilities_add_up_whatever_was_seen(rows: list[Evidence], fewest: int) -> None:
    evidence = [dataclasses.replace(row, floors=2 + index) for index, row in enumerate(rows)]
    fewest = min(fewest, len(rows) + 1)
    chances = count_chances(evidence, fewest)
    assert [number for number, _ in chances] == list(range(fewest, len(rows) + 2))
    assert sum(chance for _, chance in chances) == pytest.approx(1)


def test_more_slabs_and_more_agreement_speak_for_more_floors() -> None:
    def expected(separation: float, agreement: float, gulf: float) -> float:
        rows = [Evidence(2, 0.7, 14, 0.3), Evidence(3, agreement, separation, gulf), Evidence(4, 0.1, 3, 0.0)]
        return sum(number * chance for number, chance in count_chances(rows))

    base = expected(11, 0.7, 0.05)
    assert expected(13, 0.7, 0.05) > base
    assert expected(11, 0.9, 0.05) > base
    assert expected(11, 0.7, 0.3) > base


@pytest.mark.parametrize(
    ("chances", "warned"),
    [
        (((5, 0.95), (6, 0.05)), False),
        (((5, 0.65), (6, 0.35)), True),
        (((5, 0.85), (6, 0.15)), True),
        (((5, 0.55), (6, 0.2), (4, 0.25)), True),
        (((2, 0.0),), True),
    ],
)
def test_a_close_rival_or_a_low_probability_is_said(
    chances: tuple[tuple[int, float], ...], warned: bool
) -> None:
    found = FloorCount(chances[0][0], chances, tuple(Evidence(each, 0.8, 14.0, 0.3) for each in range(2, 8)))
    assert (found.warning is not None) == warned
    if found.warning is not None and len(chances) > 1:
        rival = max(chances[1:], key=lambda row: row[1])
        assert f"{rival[0]} of {rival[1]:.0%}" in found.warning


def test_a_slab_shows_and_a_line_across_a_floor_does_not() -> None:
    building = made_up(floors=2, per_floor=60, seed=3)
    readings = audible_readings(building.scans)
    alike = readings + 100
    alike = alike / np.linalg.norm(alike, axis=1, keepdims=True)
    slab = building.floor.astype(np.int32)
    loudest = readings[:60].max(0).argmax()
    line = (readings[:60, loudest] < np.median(readings[:60, loudest])).astype(np.int32)
    assert separation(readings, slab) > 11.5 > separation(readings[:60], line)
    first = alike[:60]
    assert gulf(nearest(alike @ alike.T), slab) > gulf(nearest(first @ first.T), line)


def test_loudness_is_compared_by_hand() -> None:
    """Two parts of three scans: 30 dB apart (counts as 15) and 6 dB apart on the others."""
    loud = np.array([[-40.0, -60.0, -50.0]] * 3 + [[-70.0, -54.0, -56.0]] * 3, np.float32)
    label = np.array([0, 0, 0, 1, 1, 1], np.int32)
    assert separation(loud, label) == pytest.approx((15 + 6 + 6) / 3)


@given(seed=st.integers(0, 1000))
def test_agreement_is_the_mean_adjusted_rand_index(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, (4, 30)).astype(np.int32)
    labels[:, :3] = np.arange(3)
    pairs = [[adjusted_rand(one, other) for other in labels] for one in labels]
    expected = (np.sum(pairs, axis=1) - 1) / 3
    np.testing.assert_allclose(mean_agreement(labels, 3), expected, atol=1e-6)


def test_a_real_building_is_counted_or_said_to_be_uncertain(data_root: object) -> None:
    """CETC331 has three floors, one of which has a wing that looks like one of its own."""
    building = load_building("cetc331").balanced(150, seed=0)
    found = estimated(building)
    assert abs(found.floors - 3) <= 2
    assert found.floors == 3 or found.warning is not None
