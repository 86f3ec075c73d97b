"""Engines of TensorRT, really built (no GPU is needed for that), kept, and built anew when they must be."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import pytest

from nonet.runtime.backends.contract import LoadError
from nonet.runtime.backends.tensorrt_engine import EngineCache, EngineRequest, build_engine, tensorrt_module
from nonet.runtime.tensors import DataType, TensorSpec

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt-rtx is not installed (95 MB): pip install tensorrt-rtx==1.7.1.116",
)

NETWORK = Path(__file__).parents[3] / "model_repository" / "walking" / "1" / "model.onnx"
INPUTS = (TensorSpec("inputs", DataType.FP32, (-1, 8, 100)),)


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    path = tmp_path / "1" / "model.onnx"
    path.parent.mkdir()
    shutil.copy(NETWORK, path)
    return EngineRequest(path, INPUTS, 16, "none", "SM86")


def test_an_engine_is_built_and_found_again(request_: EngineRequest, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    first = cache.engine(request_)
    assert len(first) > 10_000
    (kept,) = (tmp_path / "engines").glob("*.plan")
    written = kept.stat().st_mtime_ns
    assert EngineCache(tmp_path / "engines").engine(request_) == first
    assert kept.stat().st_mtime_ns == written


def test_a_damaged_engine_is_built_anew(request_: EngineRequest, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    whole = cache.engine(request_)
    (kept,) = (tmp_path / "engines").glob("*.plan")
    kept.write_bytes(kept.read_bytes()[:-7])
    assert len(cache.engine(request_)) == len(whole)
    assert len(kept.read_bytes()) == len(whole) + 32


def test_whatever_decides_an_engine_is_in_its_key(request_: EngineRequest) -> None:
    module = tensorrt_module()
    wider = (TensorSpec("inputs", DataType.FP32, (-1, 8, -1)),)
    others = [
        dataclasses.replace(request_, largest_batch=8),
        dataclasses.replace(request_, gpu="another"),
        dataclasses.replace(request_, capability="SM89"),
        dataclasses.replace(request_, inputs=wider),
    ]
    keys = {each.key(module) for each in (request_, *others)}
    assert len(keys) == 5
    before = request_.key(module)
    request_.path.write_bytes(request_.path.read_bytes() + b" ")
    assert request_.key(module) not in {before, *keys}


def test_what_it_cannot_take_is_said(request_: EngineRequest) -> None:
    request_.path.write_bytes(b"no network")
    with pytest.raises(LoadError, match="does not take"):
        build_engine(tensorrt_module(), request_)
    text = EngineRequest(NETWORK, (TensorSpec("text", DataType.BYTES, (-1,)),), 1, "none", "SM86")
    with pytest.raises(LoadError, match="BYTES"):
        build_engine(tensorrt_module(), text)


def test_a_cache_that_cannot_be_written_costs_time_only(request_: EngineRequest, tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file, where a folder should be")
    assert len(EngineCache(tmp_path / "engines").engine(request_)) > 10_000
