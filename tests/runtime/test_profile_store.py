"""Stored measurements: kept per machine and content, never trusted when in doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.profile import EngineProfile, ModelProfile, ProfileStore, cache_folder, measure_latency
from tests.support.misbehaving_servables import (
    DoublingServable,
    FailingServable,
    ItemFailingServable,
    doubling_info,
)

CONTENT = "ab" * 32


def profile(*, content: str = CONTENT, chosen: int = 0, accepted: bool = True) -> ModelProfile:
    engine = EngineProfile(
        engine="onnxruntime",
        engine_version="1",
        precision="fp32",
        latencies={1: 0.25, 8: 0.5},
        accepted=accepted,
    )
    return ModelProfile(
        model="net",
        version="1",
        content=content,
        machine="here",
        created="2026-01-01T00:00:00+00:00",
        threads=1,
        chosen=chosen,
        engines=(engine,),
    )


def test_what_was_written_is_read_on_the_same_machine_only(tmp_path: Path) -> None:
    here, there = ProfileStore(tmp_path, "here"), ProfileStore(tmp_path, "there")
    assert here.read(CONTENT) is None
    assert here.stamp(CONTENT) == (0, 0)
    here.write(profile())
    assert here.read(CONTENT) == profile()
    assert here.read(CONTENT).choice.latencies == {1: 0.25, 8: 0.5}  # type: ignore[union-attr]
    assert here.stamp(CONTENT) != (0, 0)
    assert there.read(CONTENT) is None
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        profile(content="cd" * 32).model_dump_json().encode(),
        profile(chosen=5).model_dump_json().encode(),
        profile(chosen=-1).model_dump_json().encode(),
        profile(accepted=False).model_dump_json().encode(),
    ],
)
def test_a_file_that_cannot_be_trusted_counts_as_none(tmp_path: Path, text: bytes) -> None:
    store = ProfileStore(tmp_path, "here")
    store.write(profile())
    (path,) = (path for path in tmp_path.rglob("*.json"))
    path.write_bytes(text)
    assert store.read(CONTENT) is None


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "AB" * 32, "ab" * 31])
def test_only_digests_name_files(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        ProfileStore(tmp_path, "here").read(digest)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NONET_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("NONET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nonet"


def test_latency_is_measured_for_every_size_within_the_repeats() -> None:
    servable = DoublingServable()
    latencies = measure_latency(servable, [1, 2, 8], repeats=3)
    assert sorted(latencies) == [1, 2, 8]
    assert all(seconds > 0 for seconds in latencies.values())
    assert servable.executions == [1] * 4 + [2] * 4 + [8] * 4


def test_the_budget_ends_a_slow_measurement() -> None:
    servable = DoublingServable()
    latencies = measure_latency(servable, [1, 2], repeats=100, budget=0.0)
    assert servable.executions == [1, 2]
    assert all(seconds > 0 for seconds in latencies.values())


def test_a_servable_that_fails_on_its_own_sample_is_not_measured() -> None:
    with pytest.raises(InvalidArgument):
        measure_latency(ItemFailingServable(is_bad=lambda request: True), [1])
    with pytest.raises(RuntimeError):
        measure_latency(FailingServable(info=doubling_info("x")), [1])
