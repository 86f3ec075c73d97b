"""The identification service over a handmade building: rows, refusals, and batch peers that do not matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.research.fis_one.identifier import RANKS
from nonet.research.fis_one.serving_graph import build_serving_graph
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.scans import Scans
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Tensor
from nonet.services.floor_identification import derive
from tests.support import toy_worker
from tests.support.managed_repository import ManagedRepository

NAMES = tuple(f"m{number}" for number in range(6))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> ManagedRepository:
    root = tmp_path_factory.mktemp("identify") / "models"
    scans = Scans.build([("a", dict.fromkeys(NAMES, -50.0))])
    toy_worker.publish(root, "home", scans, {"fact": 1}, 0, "job")
    house = ManagedRepository(root, root.parent / "cache", derive=[derive])
    house.manager.load_all()
    return house


@pytest.fixture(scope="module")
def service(house: ManagedRepository) -> Servable:
    with house.catalog.lease("identify.floors_home") as lease:
        return lease.servable


def request(*scans: object) -> InferRequest:
    rows = [scan if isinstance(scan, bytes) else json.dumps(scan).encode() for scan in scans]
    return InferRequest(model="identify.floors_home", inputs=(Tensor.of_bytes("scan", rows),))


def answered(outcome: Outcome) -> InferResponse:
    assert isinstance(outcome, InferResponse), outcome
    return outcome


def test_what_is_known_of_a_building_goes_with_the_service(
    house: ManagedRepository, service: Servable
) -> None:
    info = service.info
    assert info.labels == ("B1", "F1", "F2")
    assert info.details["building"] == {"scans": 1, "warnings": ["a toy"], "fact": 1}
    assert info.digest != house.catalog.info("floors_home").digest
    service.warm_up()


@given(
    scans=st.lists(
        st.dictionaries(st.sampled_from([*NAMES, "x", "M1"]), st.floats(-150, 0), max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_a_scan_gets_the_answer_it_gets_alone(service: Servable, scans: list[dict[str, float]]) -> None:
    together = answered(service.execute([request(*scans)])[0])
    apart = [answered(outcome) for outcome in service.execute([request(scan) for scan in scans])]
    for name in ("floor", "confidence", "distribution", "known", "heard"):
        alone = [answered(service.execute([request(scan)])[0]).output(name).data for scan in scans]
        assert np.concatenate(alone).tolist() == together.output(name).data.tolist()
        assert (
            np.concatenate([each.output(name).data for each in apart]).tolist()
            == np.concatenate(alone).tolist()
        )
    for row, scan in enumerate(scans):
        heard = len({name for name, power in scan.items() if name in NAMES and power})
        assert together.output("heard").data[row] == heard
        assert (together.output("floor").data[row] == b"") == (heard == 0)
        assert together.output("distribution").data[row].sum() == pytest.approx(1, abs=1e-5)
        assert 0 <= together.output("confidence").data[row] <= 1


def fitted(root: Path, house: str, foreign: bool) -> None:
    """Publish a building as a fit leaves it, with arrays from a seed, that takes readings from -80 dBm on;
    ``foreign`` ones take every scan for one of another place."""
    random = np.random.default_rng(3)
    count, states, directions, floors = len(NAMES), 4, 5, 3
    known = np.zeros((2, 1 + len(RANKS)))
    known[0, 0] = -200 if foreign else 3
    shapes = {
        "outer_states": (count, states),
        "inner_states": (count, states),
        "first.weight": (states, 2 * states),
        "first.bias": (states,),
        "second.weight": (states, 2 * states),
        "second.bias": (states,),
        "directions": (count, directions),
        "embedding_head": (floors, states),
        "direction_head": (floors, directions),
        "head_bias": (floors,),
    }
    arrays = {name: random.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {"known_head": known, "rule": np.array([-80, 0, 10])}
    arrays |= {"even": np.array([0]), "trust": np.array([0.9])}
    graph = build_serving_graph({name: value.astype(np.float32) for name, value in arrays.items()})
    toy_worker.publish(
        root, house, Scans.build([("a", dict.fromkeys(NAMES, -50.0))]), {}, 0, "job", net=graph
    )


@pytest.fixture(scope="module")
def weak_house(tmp_path_factory: pytest.TempPathFactory) -> ManagedRepository:
    root = tmp_path_factory.mktemp("weak") / "models"
    fitted(root, "near", foreign=False)
    fitted(root, "far", foreign=True)
    house = ManagedRepository(root, root.parent / "cache", derive=[derive])
    house.manager.load_all()
    return house


@given(
    scans=st.lists(
        st.dictionaries(st.sampled_from([*NAMES, "x"]), st.floats(-150, 0), max_size=6),
        min_size=1,
        max_size=4,
    ),
    building=st.sampled_from(["near", "far"]),
)
def test_what_an_answer_says_of_one_scan_fits_together(
    weak_house: ManagedRepository, scans: list[dict[str, float]], building: str
) -> None:
    """Too weak to say anything, or of another place for sure: no floor, as for a scan that holds none."""
    with weak_house.catalog.lease(f"identify.floors_{building}") as lease:
        found = answered(lease.servable.execute([request(*scans)])[0])
    names = ("floor", "confidence", "distribution", "known", "heard")
    rows = zip(scans, *(found.output(name).data for name in names), strict=True)
    for scan, floor, confidence, distribution, known, heard in rows:
        assert heard == len([name for name in NAMES if scan.get(name)])
        tells = building == "near" and any(-80 <= scan.get(name, 0) < 0 for name in NAMES)
        assert (floor != b"", known > 0, confidence > 0) == (tells, tells, tells)
        assert distribution.sum() == pytest.approx(1, abs=1e-5)
        if tells:
            assert [b"B1", b"F1", b"F2"][int(distribution.argmax())] == floor
            assert confidence == pytest.approx(distribution.max() * known, abs=1e-6)
        else:
            assert distribution.tolist() == [pytest.approx(1 / 3)] * 3


@pytest.mark.parametrize(
    "scan",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        {"a": "x"},
        {"a": None},
        {"a": True},
        {"a": 1},
        {"a": -151},
        b'{"a": NaN}',
    ],
)
def test_a_scan_that_is_none_fails_alone_with_its_row(service: Servable, scan: object) -> None:
    good = request({"m1": -40})
    failed, fine = service.execute([request({"m1": -40}, scan), good])
    assert isinstance(failed, InvalidArgument)
    assert "scan 1" in failed.message
    assert answered(fine).output("heard").data.tolist() == [1]


def test_more_scans_than_the_network_takes_at_once_are_split(service: Servable) -> None:
    many = answered(service.execute([request(*[{"m1": -40}] * 200)])[0])
    one = answered(service.execute([request({"m1": -40})])[0])
    assert np.allclose(many.output("distribution").data, one.output("distribution").data[0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("transmitters.txt", b"m0\nm1\n", "input"),
        ("transmitters.txt", b"m0\nm0\n", "different"),
        ("building.json", b"{", "JSON"),
        ("building.json", b"[]", "object"),
    ],
)
def test_a_building_whose_files_do_not_fit_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    import hashlib

    root = tmp_path / "models"
    toy_worker.publish(root, "home", Scans.build([("a", dict.fromkeys(NAMES, -50.0))]), {}, 0, "job")
    version = root / "floors_home" / "1"
    (version / name).write_bytes(content)
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (version / "manifest.json").write_text(json.dumps(manifest))
    house = ManagedRepository(root, tmp_path / "cache", derive=[derive])
    house.manager.load_all()
    entry = house.entry("floors_home", "1")
    assert entry is not None
    assert entry.state == "UNAVAILABLE"
    assert words in entry.reason
