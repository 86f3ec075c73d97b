"""The engine is chosen by measurement, among those whose answers are right; never by assumption."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nonet.runtime.backends import BackendOptions, installed_backends
from nonet.runtime.catalog import Catalog
from nonet.runtime.profile import EngineProfile, ModelProfile, ProfileStore, measure_in_turns
from nonet.runtime.repository import ModelRefused, RepositoryManager
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, scan
from nonet.runtime.repository.loader import PreparedVersion, choose_engine, prepare_version
from nonet.runtime.repository.selection import check_version, fastest, profile_version, relative_error
from nonet.runtime.requests import InferRequest, Outcome
from tests.support import handmade_networks
from tests.support.misbehaving_servables import DoublingServable

OPTIONS = BackendOptions(concurrency=1)
HAS_OPENVINO = any(engine.name == "openvino" for engine in installed_backends())
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="the extra openvino is not installed")


def prepared(root: Path, name: str = "net") -> PreparedVersion:
    model = scan(root)[name]
    config = read_config(model.path / CONFIG_FILE)
    return prepare_version(root, model, model.versions[-1], config, hasher=FileHasher())


def classifier(root: Path) -> PreparedVersion:
    root.mkdir(exist_ok=True)
    handmade_networks.add_classifier(root, "net", 8, family="tiny", top1=0.5)
    return prepared(root)


def with_choice(profile: ModelProfile, engine: str, precision: str, **changes: object) -> ModelProfile:
    """The profile as if this engine had won."""
    engines = tuple(
        one.model_copy(update={"accepted": True, **changes})
        if (one.engine, one.precision) == (engine, precision)
        else one
        for one in profile.engines
    )
    index = next(i for i, one in enumerate(engines) if (one.engine, one.precision) == (engine, precision))
    return profile.model_copy(update={"engines": engines, "chosen": index})


def test_every_installed_engine_is_measured_and_judged(tmp_path: Path) -> None:
    told: list[str] = []
    version = classifier(tmp_path / "models")
    profile = profile_version(version, OPTIONS, "here", batch_sizes=[1, 4], budget=0.01, progress=told.append)
    expected = [
        (engine.name, precision) for engine in installed_backends() for precision in engine.precisions()
    ]
    assert [(one.engine, one.precision) for one in profile.engines] == expected
    assert len(told) == len(expected)
    default = profile.engines[0]
    assert default.accepted
    assert default.error == 0.0
    assert default.batch_error == 0.0
    for one in profile.engines:
        assert sorted(one.latencies) == [1, 4]
        assert one.accepted or one.reason
        assert one.error is not None
    assert profile.choice.accepted
    assert profile.content == version.content


@needs_openvino
def test_openvino_in_fp32_agrees_with_the_reference(tmp_path: Path) -> None:
    profile = profile_version(classifier(tmp_path / "m"), OPTIONS, "here", batch_sizes=[1], budget=0.01)
    (one,) = (one for one in profile.engines if (one.engine, one.precision) == ("openvino", "fp32"))
    assert one.accepted, one.reason
    assert one.error is not None
    assert one.error < 1e-4


def test_without_a_check_set_only_the_default_is_accepted(tmp_path: Path) -> None:
    handmade_networks.add_scaled(tmp_path, "net", 2.0, 1)
    profile = profile_version(prepared(tmp_path), OPTIONS, "here", batch_sizes=[1], budget=0.01)
    assert [one.accepted for one in profile.engines] == [True] + [False] * (len(profile.engines) - 1)
    assert profile.chosen == 0


def test_a_check_set_of_another_network_is_noticed(tmp_path: Path) -> None:
    """Its answers are not this network's: the version fails verification and keeps the default engine."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    version = classifier(right)
    wrong.mkdir()
    handmade_networks.add_classifier(wrong, "net", 16, family="tiny", top1=0.5)
    stranger = dataclasses.replace(version, check_set=prepared(wrong).check_set)
    verdict = check_version(stranger, OPTIONS)
    assert verdict is not None
    assert not verdict.accepted
    assert "differs from its check set" in verdict.reason
    profile = profile_version(stranger, OPTIONS, "here", batch_sizes=[1], budget=0.01)
    assert profile.chosen == 0
    assert not profile.choice.accepted
    store = ProfileStore(tmp_path / "cache")
    store.write(profile)
    assert choose_engine(version, BackendOptions(), store) == ("onnxruntime", "fp32", None)


@pytest.mark.parametrize("damage", [b"", b"\x08\0\0\0\0\0\0\0{}", b"not safetensors" * 10])
def test_a_damaged_check_set_is_refused(tmp_path: Path, damage: bytes) -> None:
    version = classifier(tmp_path / "m")
    assert version.check_set is not None
    version.check_set.write_bytes(damage)
    with pytest.raises(ModelRefused, match="check set"):
        profile_version(version, OPTIONS, "here", batch_sizes=[1], budget=0.01)


def test_serving_uses_a_measured_choice_and_nothing_else(tmp_path: Path) -> None:
    version = classifier(tmp_path / "m")
    store = ProfileStore(tmp_path / "cache", "here")
    auto = BackendOptions()
    assert choose_engine(version, auto, store) == ("onnxruntime", "fp32", None)
    profile = profile_version(version, OPTIONS, "here", batch_sizes=[1], budget=0.01)
    store.write(with_choice(profile, "onnxruntime", "fp32"))
    engine, precision, measured = choose_engine(version, auto, store)
    assert (engine, precision) == ("onnxruntime", "fp32")
    assert isinstance(measured, EngineProfile)
    # another engine version, another number of threads, other files: not what was measured
    store.write(with_choice(profile, "onnxruntime", "fp32", engine_version="0.0"))
    assert choose_engine(version, auto, store)[2] is None
    store.write(with_choice(profile, "onnxruntime", "fp32"))
    assert choose_engine(version, BackendOptions(threads=2), store)[2] is None
    other = dataclasses.replace(version, content="0" * 64)
    assert choose_engine(other, auto, store)[2] is None
    forced = BackendOptions(engine="onnxruntime", precision="fp32")
    assert choose_engine(version, forced, store)[2] is None


@needs_openvino
def test_a_new_measurement_takes_effect_at_the_next_look(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version = classifier(root)
    store = ProfileStore(tmp_path / "cache")
    catalog = Catalog()
    manager = RepositoryManager(root, catalog, options=BackendOptions(), store=store)
    manager.load_all()
    before = catalog.info("net")
    assert before.details["engine"] == "onnxruntime"
    profile = profile_version(version, OPTIONS, store.machine, batch_sizes=[1], budget=0.01)
    store.write(with_choice(profile, "openvino", "fp32"))
    assert [change.kind for change in manager.refresh()] == ["reloaded"]
    after = catalog.info("net")
    assert (after.details["engine"], after.platform) == ("openvino", "openvino_onnx")
    assert after.digest != before.digest
    assert after.details["content"] == before.details["content"]
    assert after.details["measured_latencies"].keys() == {1}
    assert manager.refresh() == []
    manager.unload("net")


floats = hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32))


@given(floats, floats)
def test_the_relative_error_is_zero_only_for_equal_answers(one: np.ndarray, other: np.ndarray) -> None:
    assert relative_error(one, one) == 0.0
    error = relative_error(one, other)
    assert error >= 0.0
    assert (error == 0.0) == bool((one == other).all())


def test_the_relative_error_of_what_cannot_be_compared_is_infinite() -> None:
    ones = np.ones((2, 2), np.float32)
    assert relative_error(ones[:1], ones) == np.inf
    assert relative_error(ones * np.nan, ones) == np.inf
    assert relative_error(np.array([b"a"], object), np.array([b"b"], object)) == np.inf
    assert relative_error(np.array([b"a"], object), np.array([b"a"], object)) == 0.0
    assert relative_error(np.array([True]), np.array([False])) == np.inf


def measured(latencies: dict[int, float], *, accepted: bool = True) -> EngineProfile:
    return EngineProfile(
        engine="any", engine_version="1", precision="fp32", latencies=latencies, accepted=accepted
    )


@pytest.mark.parametrize(
    ("rival", "chosen"),
    [
        (measured({1: 0.8, 8: 4.0}), 1),
        (measured({1: 0.8, 8: 4.0}, accepted=False), 0),
        (measured({1: 0.97, 8: 7.9}), 0),  # not worth a change
        (measured({1: 1.04, 8: 2.0}), 0),  # faster in the mean, slower for one row
        (measured({1: 1.02, 8: 2.0}), 1),
    ],
)
def test_the_choice_is_faster_in_the_mean_and_slower_at_no_size(rival: EngineProfile, chosen: int) -> None:
    assert fastest([measured({1: 1.0, 8: 8.0}), rival]) == chosen


def test_servables_take_turns(tmp_path: Path) -> None:
    turns: list[str] = []

    class Told(DoublingServable):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
            turns.append(self.name)
            return super().execute(batch)

    pair = [Told("a"), Told("b")]
    latencies = measure_in_turns(pair, [1, 4], repeats=2, budget=1e9)
    assert turns == ["a", "b"] * 6
    assert [sorted(each) for each in latencies] == [[1, 4], [1, 4]]
