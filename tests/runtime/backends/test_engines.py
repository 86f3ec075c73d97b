"""Every engine keeps the contract: right answers for every type, named failures, concurrent use."""

from __future__ import annotations

import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nonet.runtime.backends import (
    Backend,
    BackendError,
    BackendOptions,
    InputsRejected,
    LoadedNetwork,
    LoadError,
    backend,
    installed_backends,
)
from nonet.runtime.tensors import Array, DataType, TensorSpec
from tests.support import handmade_networks

OPTIONS = BackendOptions(concurrency=2)
ENGINES = [engine.name for engine in installed_backends()]


def values(datatype: DataType, count: int) -> Array:
    if datatype is DataType.BYTES:
        array = np.empty((count, 2), dtype=object)
        array.reshape(-1)[:] = [f"é{index}\0".encode() for index in range(2 * count)]
        return array
    if datatype is DataType.BOOL:
        return (np.arange(2 * count) % 2 == 0).reshape(count, 2)
    if datatype.is_float:
        return (np.arange(2 * count).reshape(count, 2) - 1.5).astype(datatype.numpy)
    info = np.iinfo(datatype.numpy)
    return np.array([[info.min, info.max]] * count, dtype=datatype.numpy)


def load(
    engine: Backend, folder: Path, datatype: DataType = DataType.FP32, precision: str = "fp32"
) -> LoadedNetwork:
    version = handmade_networks.add_identity(folder, f"echo_{datatype.lower()}", datatype.value, (2,))
    spec = (-1, 2)
    return engine.load(
        version / "model.onnx",
        [TensorSpec("x", datatype, spec)],
        [TensorSpec("y", datatype, spec)],
        precision=precision,
        options=OPTIONS,
    )


@pytest.mark.parametrize("datatype", list(DataType))
@pytest.mark.parametrize("name", ENGINES)
def test_an_identity_returns_every_type_bit_for_bit(tmp_path: Path, name: str, datatype: DataType) -> None:
    engine = backend(name)
    if name == "openvino" and datatype in ("BYTES", "BF16", "INT64", "FP64"):
        with pytest.raises(LoadError, match="cannot carry"):
            load(engine, tmp_path, datatype)
        return
    network = load(engine, tmp_path, datatype)
    for rows in (1, 3, 2):
        x = values(datatype, rows)
        y = network.infer({"x": x}, ["y"])["y"]
        assert y.dtype == datatype.numpy
        assert y.shape == x.shape
        assert y.tobytes() == x.tobytes() if datatype is not DataType.BYTES else (y == x).all()
    network.unload()


def test_an_empty_bfloat16_tensor_passes(tmp_path: Path) -> None:
    network = load(backend("onnxruntime"), tmp_path, DataType.BF16)
    y = network.infer({"x": np.empty((0, 2), dtype=ml_dtypes.bfloat16)}, ["y"])["y"]
    assert y.shape == (0, 2)
    network.unload()


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    network = load(backend("onnxruntime"), tmp_path, DataType.BYTES)
    bad = np.array([[b"\xff\xfe", b"ok"]], dtype=object)
    with pytest.raises(InputsRejected, match="UTF-8"):
        network.infer({"x": bad}, ["y"])
    assert network.infer({"x": np.array([[b"a", b"b"]], dtype=object)}, ["y"])["y"].tolist() == [[b"a", b"b"]]


@pytest.mark.parametrize("name", ENGINES)
def test_a_wrong_shape_is_refused_and_the_next_request_works(tmp_path: Path, name: str) -> None:
    network = load(backend(name), tmp_path)
    with pytest.raises(BackendError):
        network.infer({"x": np.zeros((1, 3), np.float32)}, ["y"])
    assert network.infer({"x": np.ones((1, 2), np.float32)}, ["y"])["y"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("name", ENGINES)
def test_answers_belong_to_the_caller(tmp_path: Path, name: str) -> None:
    network = load(backend(name), tmp_path)
    first = network.infer({"x": np.ones((1, 2), np.float32)}, ["y"])["y"]
    for _ in range(4):
        network.infer({"x": np.full((1, 2), 7, np.float32)}, ["y"])
    assert first.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("name", ENGINES)
def test_concurrent_calls_do_not_mix(tmp_path: Path, name: str) -> None:
    """More callers than infer requests: some wait, none sees another's answer."""
    network = load(backend(name), tmp_path)
    wrong: list[float] = []

    def ask(number: int) -> None:
        for step in range(50):
            value = float(number * 1000 + step)
            answer = network.infer({"x": np.full((1 + step % 3, 2), value, np.float32)}, ["y"])["y"]
            if answer.shape != (1 + step % 3, 2) or not (answer == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ENGINES)
def test_a_file_that_is_no_network_is_a_load_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network at all")
    with pytest.raises(LoadError):
        backend(name).load(path, [], [], precision="fp32", options=OPTIONS)


@pytest.mark.parametrize("name", ENGINES)
def test_an_unloaded_network_refuses_to_run(tmp_path: Path, name: str) -> None:
    network = load(backend(name), tmp_path)
    network.unload()
    with pytest.raises(BackendError):
        network.infer({"x": np.zeros((1, 2), np.float32)}, ["y"])


def test_a_precision_the_engine_lacks_is_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="bf16"):
        load(backend("onnxruntime"), tmp_path, precision="bf16")


def test_an_unknown_engine_is_named_with_the_known_ones() -> None:
    with pytest.raises(LoadError, match="onnxruntime, openvino"):
        backend("tensorflow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "onnx"}, "engine must be one of auto, onnxruntime, openvino"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"concurrency": -1}, "concurrency must be 0"),
    ],
)
def test_bad_options_are_refused_where_they_are_made(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackendOptions(**change)  # type: ignore[arg-type]
