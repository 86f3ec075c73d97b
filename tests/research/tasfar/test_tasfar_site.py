"""Adapting a published version: what travels, what comes back, and when it declines."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_tensors

from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.tasfar.evidence import Bounds
from nonet.research.tasfar.networks import NetworkFiles, load_network
from nonet.research.tasfar.release import files_of, publish_adapted
from nonet.research.tasfar.site import AdaptOptions, adapt_regressor, adapt_version
from nonet.research.tasfar.tasks import Split
from nonet.research.tasfar.uncertainty import estimates_of
from nonet.research.tasfar.version_files import Regressor, read_regressor
from nonet.runtime.errors import InvalidArgument, ModelRefused
from nonet.runtime.repository.manifest import Manifest, read_manifest
from tests.support import synthetic_regressor as made_up
from tests.support.synthetic_regressor import kind, load, published, rows, trained


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("regressors"))


def site(count: int = 600, seed: int = 2) -> np.ndarray:
    return made_up.site(count, seed)[0]


def test_a_site_is_adapted_to_and_the_new_version_answers_as_the_network_does(
    version: Path, tmp_path: Path
) -> None:
    told: list[float] = []
    found = adapt_version(version, site(), AdaptOptions(), lambda what, share: told.append(share))
    assert found.accepted, found.reasons
    assert found.reasons == ()
    assert told == sorted(told)
    evidence = found.evidence
    assert evidence["confident"] + evidence["uncertain"] == 600
    assert evidence["likelihood_uncertain"]["after"] >= evidence["likelihood_uncertain"]["before"] - 0.1
    assert abs(np.sum(evidence["map"]["shares"]) - 1) < 1e-2
    json.dumps(evidence)
    made = publish_adapted(
        tmp_path, "bent_there", version, found.files, {"model": "bent", "version": "1"}, command="a test"
    )
    manifest = read_manifest(made.path / "manifest.json")
    assert manifest is not None
    assert manifest.source["lineage"] == {"model": "bent", "version": "1"}
    assert manifest.source["outputs"] == ["height"]
    assert manifest.quality == {}
    asked = site(5, 9)
    value, std = run(open_session(made.path / "model.onnx"), asked)
    again = estimates_of(read_regressor(made.path).answering, torch.from_numpy(asked))
    np.testing.assert_allclose(value, again.value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, again.std, rtol=1e-3, atol=1e-5)
    before, _ = run(open_session(version / "model.onnx"), asked)
    assert not np.allclose(value, before, atol=1e-4)


@pytest.mark.parametrize("name", ["ensemble", "learned_variance"])
def test_other_kinds_of_uncertainty_are_published_and_adapted_alike(name: str) -> None:
    answering, facts = trained(*kind(name))
    regressor = Regressor(answering, facts, Manifest(files={"a": "0" * 64}))
    found = adapt_regressor(regressor, site(), AdaptOptions(epochs=2, force=True))
    assert found.answering is not None
    files = files_of(found.answering, facts)
    assert set(files) == {
        "model.onnx",
        "check.safetensors",
        "network.json",
        "network.safetensors",
        "calibration.json",
    }
    value, std = run(open_session(files["model.onnx"]), site(4))
    assert value.shape == std.shape == (4, 1)
    kept = load_network(NetworkFiles(files["network.json"], files["network.safetensors"]))
    assert kept.spec == answering.network.spec


def test_no_row_of_the_source_is_in_a_versions_files(version: Path) -> None:
    """Neither as the numbers of a row nor as a single value of an input or a label."""
    source = load(Path()).source
    table = np.concatenate([source.inputs, source.labels.astype(np.float32)], 1)
    floats = {value.tobytes() for value in table.ravel()}
    said = {f"{value:.6g}" for value in table.ravel()}
    for path in version.iterdir():
        content = path.read_bytes()
        assert all(row.tobytes() not in content for row in source.inputs), path.name
        if path.suffix == ".json":
            numbers = {f"{value:.6g}" for value in _numbers(json.loads(content))}
            assert len(numbers & said) == 0, path.name
        elif path.suffix == ".safetensors":
            values = {each.tobytes() for tensor in load_tensors(content).values() for each in tensor.ravel()}
            assert len(values & floats) <= 2, path.name  # weights are many; one may be equal by chance


def _numbers(facts: object) -> list[float]:
    if isinstance(facts, dict):
        return [each for value in facts.values() for each in _numbers(value)]
    if isinstance(facts, list):
        return [each for value in facts for each in _numbers(value)]
    return [facts] if isinstance(facts, float) else []


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("five rows", site(5), "too few"),
        ("one constant", np.repeat(site(1), 500, 0), "too few"),
        ("nearly one constant", np.repeat(rows(1, 5), 300, 0) + 1e-3 * rows(300, 6), "one peak"),
        ("the source itself", Split.of(load(Path()).source, 0).calibrate.inputs, "nothing to adapt"),
        ("noise", rows(600, 4, 0.0, 20.0), "sure of"),
        ("nothing", np.zeros((0, 4)), "no rows"),
    ],
)
def test_it_declines_and_says_why(name: str, given: np.ndarray, says: str, version: Path) -> None:
    found = adapt_version(version, given)
    assert not found.accepted
    assert any(says in reason for reason in found.reasons), found.reasons
    assert found.files == {}


def test_labels_that_leaked_into_the_inputs_do_no_harm() -> None:
    """A column of the labels makes the model nearly perfect; whatever it decides, the error stays."""

    def leaked(root: Path) -> made_up.Domains:
        known = load(root)
        parts = []
        for part in (known.source, known.target):
            inputs = part.inputs.copy()
            inputs[:, 3] = part.labels[:, 0]
            parts.append(dataclasses.replace(part, inputs=inputs))
        return made_up.Domains(*parts)

    data = leaked(Path())
    answering, facts = made_up.train_source(made_up.TASK, Split.of(data.source, 0), 0)
    found = adapt_regressor(Regressor(answering, facts, Manifest(files={"a": "0" * 64})), data.target.inputs)
    used = found.answering if found.accepted and found.answering is not None else answering
    before, after = (
        float(((estimates_of(each, data.target.tensor()).value - data.target.labels) ** 2).mean())
        for each in (answering, used)
    )
    assert after <= 1.02 * before


def test_training_that_moves_what_should_stay_is_declined(version: Path) -> None:
    regressor = read_regressor(version)
    found = adapt_regressor(regressor, site(), AdaptOptions(bounds=Bounds(most_change=1e-6)))
    assert not found.accepted
    assert "confident predictions changed" in found.reasons[0]
    stopped = adapt_regressor(regressor, site(), stopping=lambda: True)
    assert "stopped" in stopped.reasons[-1]


def test_an_uncertainty_that_says_nothing_corrects_nothing(version: Path) -> None:
    regressor = read_regressor(version)
    calibration = dataclasses.replace(regressor.facts.calibration, slope=-0.1)
    known = dataclasses.replace(regressor.facts, calibration=calibration)
    found = adapt_regressor(dataclasses.replace(regressor, facts=known), site())
    assert not found.accepted
    assert "said nothing about its errors" in found.reasons[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((9, 5)), "takes \\[N, 4\\]"),
        (np.full((9, 4), np.nan), "row 0 has a value that is not finite"),
        ([[1, 2, 3, 4], [1, 2]], "numbers"),
        ([["a", 1, 2, 3]], "numbers"),
    ],
)
def test_rows_that_are_none_are_refused(given: object, says: str, version: Path) -> None:
    with pytest.raises(InvalidArgument, match=says):
        adapt_version(version, given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["network.json", "calibration.json", "network.safetensors"])
def test_a_version_whose_files_were_changed_is_refused(name: str, version: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(version.parent, tmp_path / "bent")) / version.name
    (copied / name).write_bytes((copied / name).read_bytes().replace(b"0", b"1"))
    with pytest.raises(ModelRefused, match="not the one"):
        adapt_version(copied, site())


def test_what_it_accepts_here_is_better_for_rows_it_never_saw(version: Path) -> None:
    """With labels that nothing but this test knows."""
    found = adapt_regressor(read_regressor(version), site())
    assert found.accepted, found.reasons
    assert found.answering is not None
    inputs, labels = made_up.site(400, 8)
    before, after = (
        float(((estimates_of(each, torch.from_numpy(inputs)).value - labels) ** 2).mean())
        for each in (read_regressor(version).answering, found.answering)
    )
    assert after < 0.95 * before
