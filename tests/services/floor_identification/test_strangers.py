"""Transmitters that a building has never heard count against a scan's being of it, and only against."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.scans import Scans
from nonet.runtime.tensors import Tensor
from nonet.services.floor_identification import derive
from nonet.services.floor_identification.foreign_transmitters import beside_strangers
from tests.support.managed_repository import ManagedRepository
from tests.support.toy_worker import publish

NAMES = tuple(f"m{number}" for number in range(6))
COUNTS = st.integers(0, 3000)


def judged(known: float, acquainted: int, strangers: int) -> float:
    return float(
        beside_strangers(np.array([known], np.float32), np.array([acquainted]), np.array([strangers]))[0]
    )


@given(known=st.floats(0, 1, width=32), acquainted=COUNTS, strangers=COUNTS)
def test_strangers_only_count_against_and_only_where_they_are_more(
    known: float, acquainted: int, strangers: int
) -> None:
    found = judged(known, acquainted, strangers)
    assert 0 <= found <= known
    assert judged(known, acquainted, strangers + 1) <= found <= judged(known, acquainted + 1, strangers)
    if strangers <= acquainted:
        assert found == pytest.approx(known, abs=1e-6)


def test_each_stranger_too_many_takes_the_same_from_the_odds() -> None:
    odds = [(found := judged(0.9, 4, 4 + more)) / (1 - found) for more in range(4)]
    np.testing.assert_allclose(np.array(odds[:-1]) / odds[1:], 7 / 3, rtol=1e-3)


def test_no_certainty_of_the_network_outweighs_a_crowd_of_strangers() -> None:
    assert judged(1.0, 3, 3) == 1
    assert judged(1.0, 3, 40) < 0.01


def test_the_service_counts_strangers_by_name_and_only_readings_that_a_fit_would_use(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("strangers") / "models"
    publish(root, "home", Scans.build([("a", dict.fromkeys(NAMES, -50.0))]), {}, 0, "job")
    house = ManagedRepository(root, root.parent / "cache", derive=[derive])
    house.manager.load_all()
    own = {"m1": -50, "m2": -60}
    crowd = {f"02:00:00:00:00:{number:02x}": -60 for number in range(12)}
    scans = [
        own,
        own | dict.fromkeys(crowd, -95),
        own | {"02:00:00:00:00:AA": -60, "02-00-00-00-00-aa": -61, "0200000000aa": -62},
        own | crowd,
    ]
    request = InferRequest(
        model="identify.floors_home",
        inputs=(Tensor.of_bytes("scan", [json.dumps(scan).encode() for scan in scans]),),
    )
    with house.catalog.lease("identify.floors_home") as lease:
        (outcome,) = lease.servable.execute([request])
    assert isinstance(outcome, InferResponse), outcome
    alone, faint, spellings, crowded = outcome.output("known").data
    assert alone == faint == spellings > 0
    assert crowded < alone / 100
    assert outcome.output("heard").data.tolist() == [2, 2, 2, 2]
    assert len(set(outcome.output("floor").data.tolist())) == 1
    np.testing.assert_allclose(outcome.output("distribution").data[3], outcome.output("distribution").data[0])
