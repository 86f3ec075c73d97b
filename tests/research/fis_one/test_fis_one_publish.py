"""A fitted building as a model version: the graph, the files, the next number."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nonet.research.fis_one.building import FitOptions, FittedBuilding
from nonet.research.fis_one.fit import fit_building
from nonet.research.fis_one.graph import GraphRule
from nonet.research.fis_one.identifier import identify
from nonet.research.fis_one.publish import ExportError, check_graph, check_rows, publish_building
from nonet.research.fis_one.serving_graph import build_serving_graph
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.repository.labels import read_labels
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.manifest import read_manifest
from tests.support.synthetic_wifi import QUICK, made_up

pytestmark = pytest.mark.usefixtures("few_partitions")

THREE = FitOptions(floors=3)


def fit(**changes: object) -> FittedBuilding:
    building = made_up(floors=3, per_floor=40)
    recipe = dataclasses.replace(QUICK, steps=10, **changes)
    return fit_building(building.scans, building.label(0), THREE, recipe=recipe)


@pytest.fixture(scope="module")
def fitted(few_partitions: None) -> FittedBuilding:
    return fit()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "none", "clustering": "ward"},
        {"rule": GraphRule(weight="power")},
        {"rule": GraphRule(weight="sharp", weakest=-80.0)},
    ],
)
def test_the_graph_answers_what_the_fit_answers(changes: dict[str, object]) -> None:
    fitted = fit(**changes)
    rows = check_rows(fitted)
    answers = check_graph(build_serving_graph(fitted.network), fitted, rows)
    np.testing.assert_allclose(answers["distribution"].sum(1), 1, atol=1e-5)
    assert answers["known"][0, 0] == 0
    np.testing.assert_allclose(answers["distribution"][0], 1 / 3, atol=1e-6)


def test_a_version_has_all_its_files_and_the_next_number(fitted: FittedBuilding, tmp_path: Path) -> None:
    first = publish_building(tmp_path, "hall", fitted, command="nonet test")
    second = publish_building(tmp_path, "hall", fitted, command="nonet test")
    assert (first.model, first.version, second.version) == ("floors_hall", "1", "2")
    assert read_labels(tmp_path / "floors_hall" / "labels.txt") == fitted.floors
    names = ["building.json", "check.safetensors", "model.onnx", "transmitters.txt"]
    names += ["picture.png"] if importlib.util.find_spec("matplotlib") else []
    manifest = read_manifest(second.path / "manifest.json")
    assert manifest is not None
    assert sorted(manifest.files) == sorted(names)
    assert (manifest.task, manifest.family) == ("floor-identification", "floors_hall")
    assert manifest.command == "nonet test"
    lines = (second.path / "transmitters.txt").read_text().splitlines()
    assert tuple(lines) == fitted.transmitters
    facts = json.loads((second.path / "building.json").read_text())
    assert facts["format"] == 1
    assert facts["floors"] == list(fitted.floors)
    assert sum(facts["scans_per_floor"].values()) == 120
    assert {"label", "options", "order", "spillover", "floor_count", "quality", "warnings"} <= facts.keys()
    session = onnxruntime.InferenceSession(second.path / "model.onnx", providers=["CPUExecutionProvider"])
    rows = check_rows(fitted)
    distribution, known = session.run(["distribution", "known"], {"rssi": rows})
    expected = identify(fitted.network, rows)
    np.testing.assert_allclose(distribution, expected[0], atol=1e-4)
    np.testing.assert_allclose(known[:, 0], expected[1], atol=1e-4)


def test_a_refit_with_more_transmitters_is_a_new_version_beside_the_old(
    fitted: FittedBuilding, tmp_path: Path
) -> None:
    building = made_up(floors=3, per_floor=40, aps=20)
    wider = fit_building(
        building.scans, building.label(0), THREE, recipe=dataclasses.replace(QUICK, steps=10)
    )
    assert len(wider.transmitters) > len(fitted.transmitters)
    publish_building(tmp_path, "hall", fitted, command="")
    publish_building(tmp_path, "hall", wider, command="")
    found = read_model(tmp_path, "floors_hall")
    assert found is not None
    assert [version.version for version in found.versions] == ["1", "2"]


def test_other_floor_names_replace_the_model_in_one_step(fitted: FittedBuilding, tmp_path: Path) -> None:
    publish_building(tmp_path, "hall", fitted, command="")
    renamed = dataclasses.replace(fitted, floors=("G", "1", "2"))
    assert publish_building(tmp_path, "hall", renamed, command="").version == "2"
    found = read_model(tmp_path, "floors_hall")
    assert found is not None
    assert [version.version for version in found.versions] == ["2"]
    assert read_labels(tmp_path / "floors_hall" / "labels.txt") == ("G", "1", "2")


@pytest.mark.parametrize("name", ["", "a/b", "..\\x", "x" * 130, "ä"])
def test_a_name_that_cannot_be_a_folder_is_refused(fitted: FittedBuilding, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="building"):
        publish_building(tmp_path, name, fitted, command="")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_differs_is_not_published(fitted: FittedBuilding) -> None:
    changed = dict(fitted.network) | {"head_bias": fitted.network["head_bias"] + np.float32([3, 0, 0])}
    with pytest.raises(ExportError, match="differs"):
        check_graph(build_serving_graph(changed), fitted, check_rows(fitted))
