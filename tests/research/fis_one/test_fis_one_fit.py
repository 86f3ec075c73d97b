"""Fitting a building: floors, labels anywhere, hard input, and a fit that is stopped, killed and resumed."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from nonet.research.fis_one.building import FitOptions, FitProgress, FittedBuilding, FloorLabel
from nonet.research.fis_one.checkpoint import FitCheckpoint
from nonet.research.fis_one.data import SurveyedBuilding, load_building
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.identifier import identify
from nonet.research.fis_one.metrics import score_floors
from nonet.research.fis_one.recipes import Recipe
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.scans import Scans
from tests.support.synthetic_wifi import QUICK, QUICK_PAPER, made_up

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_partitions")]

FOUR = FitOptions(floors=4)


def accuracy(building: SurveyedBuilding, fitted: FittedBuilding) -> float:
    used = fitted.floor_of_scan >= 0
    return float((building.floor[used] == fitted.floor_of_scan[used]).mean())


def served(building: SurveyedBuilding, fitted: FittedBuilding) -> float:
    """Accuracy when scans are identified as new ones."""
    distribution, _ = identify(fitted.network, building.scans.dense(fitted.transmitters))
    return float((distribution.argmax(1) == building.floor).mean())


@pytest.fixture(scope="module")
def fitted(building: SurveyedBuilding, few_partitions: None) -> FittedBuilding:
    return fit_building(building.scans, building.label(0), FOUR, recipe=QUICK)


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["default", "paper"])
def test_one_label_gives_all_floors_and_new_scans(building: SurveyedBuilding, recipe: Recipe) -> None:
    fitted = fit_building(building.scans, building.label(1), FOUR, recipe=recipe)
    assert fitted.floors == ("F1", "F2", "F3", "F4")
    assert accuracy(building, fitted) > 0.95
    assert served(building, fitted) > accuracy(building, fitted) - 0.02
    other = made_up(per_floor=60, seed=0).take(np.arange(0, 240, 3))
    assert served(other, fitted) > 0.93


def test_the_same_arguments_give_the_same_building(
    building: SurveyedBuilding, fitted: FittedBuilding
) -> None:
    again = fit_building(building.scans, building.label(0), FOUR, recipe=QUICK)
    np.testing.assert_array_equal(again.floor_of_scan, fitted.floor_of_scan)
    for name, value in fitted.network.items():
        np.testing.assert_array_equal(again.network[name], value)
    assert again.facts == fitted.facts


@pytest.mark.parametrize("floor", [1, 3])
def test_the_label_may_be_on_any_floor(building: SurveyedBuilding, floor: int) -> None:
    fitted = fit_building(building.scans, building.label(0, floor), FOUR, recipe=QUICK)
    assert accuracy(building, fitted) > 0.95
    assert fitted.floors[floor] == building.floors[floor]
    assert fitted.facts["order"]["decided"]


def test_names_place_the_label_and_top_counts_from_above(building: SurveyedBuilding) -> None:
    names = ("Cellar", "Hall", "Gallery", "Roof")
    row = int(np.flatnonzero(building.floor == 3)[0])
    options = FitOptions(names=names)
    by_name = FloorLabel(building.scans.ids[row], "Roof")
    by_place = FloorLabel(building.scans.ids[row], "Roof", position=-1)
    first, second = (
        fit_building(building.scans, each, options, recipe=QUICK) for each in (by_name, by_place)
    )
    assert first.floors == names
    assert accuracy(building, first) > 0.95
    np.testing.assert_array_equal(first.floor_of_scan, second.floor_of_scan)


def test_a_label_on_the_middle_floor_gives_both_orders() -> None:
    building = made_up(floors=3)
    fitted = fit_building(building.scans, building.label(0, 1), FitOptions(floors=3), recipe=QUICK)
    facts = fitted.facts["order"]
    assert not facts["decided"]
    assert facts["hypotheses"] == [["F1", "F2", "F3"], ["F3", "F2", "F1"]]
    assert any("middle floor" in warning for warning in fitted.facts["warnings"])
    right = max(accuracy(building, fitted), float((building.floor == 2 - fitted.floor_of_scan).mean()))
    assert right > 0.95


def test_an_unknown_number_of_floors_is_estimated_with_its_evidence(building: SurveyedBuilding) -> None:
    fitted = fit_building(building.scans, building.label(0), FitOptions(), recipe=QUICK)
    count = fitted.facts["floor_count"]
    assert count["estimated"]
    assert count["floors"] == len(fitted.floors)
    assert [row["floors"] for row in count["evidence"]] == list(range(2, 7))


def test_progress_never_falls_and_names_what_is_done(building: SurveyedBuilding) -> None:
    seen: list[FitProgress] = []
    fit_building(building.scans, building.label(0), FOUR, recipe=QUICK, report=seen.append)
    fractions = [each.fraction for each in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len({each.phase for each in seen}) >= 5


def test_what_the_reporter_raises_ends_the_fit(building: SurveyedBuilding) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: FitProgress) -> None:
        if progress.fraction > 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_building(building.scans, building.label(0), FOUR, recipe=QUICK, report=cancel)


FIT_IN_A_PROCESS = """
import dataclasses, sys
from pathlib import Path
from tests.support import synthetic_wifi
from nonet.research.fis_one import fit
fit._SAVE_EVERY = 0.0
building = synthetic_wifi.made_up()
recipe = dataclasses.replace(synthetic_wifi.QUICK, steps=400)
fit.fit_building(building.scans, building.label(0), fit.FitOptions(floors=4), recipe=recipe,
                 checkpoint=Path(sys.argv[1]))
"""


def test_a_killed_fit_resumes_to_the_same_building(building: SurveyedBuilding, tmp_path: Path) -> None:
    """kill -9 in the middle of training, at a moment of its own choosing."""
    checkpoint = tmp_path / "fit" / "checkpoint.safetensors"
    here = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", FIT_IN_A_PROCESS, str(checkpoint)], cwd=here)
    try:
        while not checkpoint.is_file():
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    recipe = dataclasses.replace(QUICK, steps=400)
    steps: list[float] = []
    resumed = fit_building(
        building.scans,
        building.label(0),
        FOUR,
        recipe=recipe,
        checkpoint=checkpoint,
        report=lambda progress: steps.append(progress.fraction),
    )
    straight = fit_building(building.scans, building.label(0), FOUR, recipe=recipe)
    np.testing.assert_array_equal(resumed.floor_of_scan, straight.floor_of_scan)
    for name, value in straight.network.items():
        np.testing.assert_array_equal(resumed.network[name], value)


def test_a_checkpoint_of_other_scans_or_a_damaged_one_is_ignored(
    building: SurveyedBuilding, fitted: FittedBuilding, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    other = made_up(floors=2, per_floor=30, seed=5)
    fit_building(other.scans, other.label(0), FitOptions(floors=2), recipe=QUICK, checkpoint=checkpoint)
    kept = checkpoint.read_bytes()
    again = fit_building(building.scans, building.label(0), FOUR, recipe=QUICK, checkpoint=checkpoint)
    np.testing.assert_array_equal(again.floor_of_scan, fitted.floor_of_scan)
    own = FitCheckpoint(checkpoint, safe_open(checkpoint, framework="numpy").metadata()["identity"])
    assert own.load() is not None
    for content in (kept, kept[:100], b""):
        checkpoint.write_bytes(content)
        assert own.load() is None


def test_impossible_requests_are_refused_before_the_work(building: SurveyedBuilding) -> None:
    label = building.label(0)
    with pytest.raises(InvalidArgument, match="not among the scans"):
        fit_building(building.scans, FloorLabel("nobody", "F1"), FOUR)
    with pytest.raises(InvalidArgument, match="2 to 16"):
        FitOptions(floors=1)
    with pytest.raises(InvalidArgument, match="no such floor"):
        fit_building(building.scans, dataclasses.replace(label, position=5), FOUR)
    names = FitOptions(names=("A", "B"))
    with pytest.raises(InvalidArgument, match="not among the floors"):
        fit_building(building.scans, FloorLabel(label.scan, "Attic"), names)
    few = building.take(np.array([int(label.scan[1:]), 0, 1]))
    with pytest.raises(InvalidArgument, match="3 usable scans"):
        fit_building(few.scans, label, FOUR)
    mute = Scans.build([("a", {}), ("b", {"x": -50.0}), ("c", {"y": -50.0}), ("d", {"y": -99.0})])
    for scan in ("a", "d"):
        with pytest.raises(InvalidArgument, match="no usable reading"):
            fit_building(mute, FloorLabel(scan, "F1"), FitOptions(floors=2))
    with pytest.raises(InvalidArgument, match="has a reading"):
        fit_building(Scans.build([("a", {"x": -99.0})]), FloorLabel("a", "F1"), FitOptions(floors=2))


def test_scans_without_readings_have_no_floor(building: SurveyedBuilding) -> None:
    parts = [(name, [("only", -99.0)]) for name in ("empty1", "empty2")]
    rows = building.scans.dense()
    named = [
        (
            name,
            [(ap, float(value)) for ap, value in zip(building.scans.transmitters, row, strict=True) if value],
        )
        for name, row in zip(building.scans.ids, rows, strict=True)
    ]
    fitted = fit_building(Scans.build(named + parts), building.label(0), FOUR, recipe=QUICK)
    assert fitted.floor_of_scan[-2:].tolist() == [-1, -1]
    assert (fitted.floor_of_scan[:-2] == building.floor).mean() > 0.95


def repeated(building: SurveyedBuilding, times: int) -> SurveyedBuilding:
    """Every scan of the first floor ``times`` over, under new names: what phones that cache results give."""
    first = np.flatnonzero(building.floor == 0)
    rows = np.concatenate([np.arange(len(building.floor)), np.repeat(first, times - 1)])
    scans = building.scans
    taken = [scans.transmitter[scans.offsets[row] : scans.offsets[row + 1]] for row in rows]
    values = [scans.rssi[scans.offsets[row] : scans.offsets[row + 1]] for row in rows]
    lengths = [len(each) for each in taken]
    return dataclasses.replace(
        building,
        scans=Scans.from_readings(
            tuple(f"r{index}" for index in range(len(rows))),
            scans.transmitters,
            np.repeat(np.arange(len(rows)), lengths),
            np.concatenate(taken),
            np.concatenate(values),
        ),
        floor=building.floor[rows],
    )


@pytest.fixture(scope="module")
def real(data_root: Path) -> SurveyedBuilding:
    """180 scans of CETC331, sixty a floor."""
    return load_building("cetc331", data_root).balanced(60, seed=0)


def test_duplicated_scans_do_no_harm(real: SurveyedBuilding) -> None:
    many = repeated(real, 4)
    fitted = fit_building(many.scans, many.label(0), FitOptions(floors=3), recipe=QUICK)
    scores = score_floors(many.floor, fitted.floor_of_scan, 3)
    assert scores.accuracy > 0.9


def test_an_access_point_that_moved_does_little_harm(real: SurveyedBuilding) -> None:
    """The most heard transmitter answers from another floor in the second half of the scans."""
    scans = real.scans
    heard = np.bincount(scans.transmitter, minlength=len(scans.transmitters))
    first, second = np.argsort(-heard)[:2]
    scan = np.repeat(np.arange(len(scans)), np.diff(scans.offsets))
    late = scan % 2 == 1
    swapped = scans.transmitter.copy()
    swapped[late & (scans.transmitter == first)] = second
    swapped[late & (scans.transmitter == second)] = first
    moved = Scans.from_readings(scans.ids, scans.transmitters, scan, swapped, scans.rssi)
    fitted = fit_building(moved, real.label(0), FitOptions(floors=3), recipe=QUICK)
    assert (fitted.floor_of_scan == real.floor).mean() > 0.9


def test_with_a_third_of_the_transmitters_gone_new_scans_are_still_placed(real: SurveyedBuilding) -> None:
    fitted = fit_building(real.scans, real.label(0), FitOptions(floors=3), recipe=QUICK)
    rows = real.scans.dense(fitted.transmitters)
    gone = np.random.default_rng(0).permutation(rows.shape[1])[: round(0.3 * rows.shape[1])]
    rows[:, gone] = 0
    distribution, known = identify(fitted.network, rows)
    assert (distribution.argmax(1) == real.floor).mean() > 0.9
    assert (known[(rows < 0).any(1)] > 0.5).mean() > 0.8


def test_one_transmitter_a_scan_neither_crashes_nor_claims_certainty(real: SurveyedBuilding) -> None:
    """Nothing links the scans of such an upload: an answer is given, however poor."""
    rows = real.scans.dense()
    loudest = np.where(rows == 0, -np.inf, rows).argmax(1)
    single = Scans.build(
        (name, {real.scans.transmitters[column]: float(row[column])})
        for name, row, column in zip(real.scans.ids, rows, loudest, strict=True)
    )
    fitted = fit_building(single, real.label(0), FitOptions(floors=3), recipe=QUICK)
    assert set(fitted.floor_of_scan.tolist()) == {0, 1, 2}
    assert np.isfinite(identify(fitted.network, single.dense(fitted.transmitters))[0]).all()


def test_a_floor_without_scans_leaves_the_others_in_order(building: SurveyedBuilding) -> None:
    """Told of four floors where three have scans: the three stay apart and in order."""
    fewer = building.take(np.flatnonzero(building.floor != 2))
    fitted = fit_building(fewer.scans, fewer.label(0), FOUR, recipe=QUICK)
    middle = [float(np.median(fitted.floor_of_scan[fewer.floor == floor])) for floor in (0, 1, 3)]
    assert middle == sorted(middle)
    assert len(set(middle)) == 3


def test_scans_of_elsewhere_are_not_known(fitted: FittedBuilding) -> None:
    nothing, chance = np.zeros((2, len(fitted.transmitters)))
    chance[::17] = -60  # transmitters of all floors at once
    distribution, known = identify(fitted.network, np.stack([nothing, chance]))
    assert known[0] == 0
    np.testing.assert_allclose(distribution[0], 1 / 4)
    assert known[1] < 0.5


def test_whose_scan_it_is_shows_in_what_is_heard_together_not_in_how_much(real: SurveyedBuilding) -> None:
    """Own scans cut down to their five strongest readings are known; long ones put together by chance are
    not."""
    fitted = fit_building(real.scans, real.label(0), FitOptions(floors=3), recipe=QUICK)
    rows = real.scans.dense(fitted.transmitters)
    strength = np.where(rows < 0, rows, -np.inf)
    fifth = -np.partition(-strength, 4, axis=1)[:, 4:5]
    short = np.where(strength >= fifth, rows, 0)
    generator = np.random.default_rng(1)
    made_up = np.zeros((200, rows.shape[1]), rows.dtype)
    for row in made_up:
        row[generator.choice(len(row), 15, replace=False)] = generator.choice(rows[rows < 0], 15)
    assert (identify(fitted.network, short)[1] > 0.5).mean() > 0.9
    assert (identify(fitted.network, made_up)[1] > 0.5).mean() < 0.1


def test_a_large_building_is_trained_on_a_part(building: SurveyedBuilding) -> None:
    recipe = dataclasses.replace(QUICK, most_trained=120)
    fitted = fit_building(building.scans, building.label(0), FOUR, recipe=recipe)
    assert accuracy(building, fitted) > 0.95
    assert any("120 of 240" in warning for warning in fitted.facts["warnings"])
