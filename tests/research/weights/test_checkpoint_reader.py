"""The reader gives what PyTorch itself reads, for every format and kind of tensor, and runs nothing."""

from __future__ import annotations

import argparse
import collections
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonet.research.weights import CheckpointLimits, read_checkpoint
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge

LEGACY = {"_use_new_zipfile_serialization": False}
FORMATS = [pytest.param({}, id="zip"), pytest.param(LEGACY, id="legacy")]
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
]


def equal(read: np.ndarray, tensor: torch.Tensor) -> None:
    assert read.flags.c_contiguous
    assert read.flags.owndata
    assert read.flags.writeable
    if tensor.dtype is torch.bfloat16:
        assert read.dtype == ml_dtypes.bfloat16
        read, tensor = read.view(np.uint16), tensor.view(torch.uint16)
    expected = tensor.detach().numpy()
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("form", FORMATS)
def test_every_type_of_tensor_is_read(form: dict[str, Any], tmp_path: Path) -> None:
    saved = {str(dtype): (torch.randn(3, 4) * 50).to(dtype) for dtype in DTYPES}
    torch.save(saved, tmp_path / "a.pth", **form)
    read = read_checkpoint(tmp_path / "a.pth")
    assert list(read) == list(saved)
    for name, tensor in saved.items():
        equal(read[name], tensor)


@pytest.mark.parametrize("form", FORMATS)
def test_views_and_shared_storages_are_read(form: dict[str, Any], tmp_path: Path) -> None:
    base = torch.arange(120.0).reshape(2, 3, 4, 5)
    saved = {
        "base": base,
        "transposed": base.permute(3, 1, 0, 2),
        "slice": base[:, 1:, ::2],
        "expanded": torch.tensor([7.0]).expand(4, 6),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 5),
        "channels last": base.to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(4)),
    }
    torch.save(saved, tmp_path / "a.pth", **form)
    read = read_checkpoint(tmp_path / "a.pth")
    for name, tensor in saved.items():
        equal(read[name], tensor)


@pytest.mark.parametrize("form", FORMATS)
def test_a_training_checkpoint_becomes_dotted_names(form: dict[str, Any], tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU())
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3, 6, 4)).sum().backward()
    optimiser.step()
    saved = {
        "model": network.state_dict(),
        "optimizer": optimiser.state_dict(),
        "epoch": 7,
        "best": 0.5,
        "name": "x",
        "history": [1, 2.5, None, True],
        "ordered": collections.OrderedDict(a=torch.ones(2)),
    }
    torch.save(saved, tmp_path / "a.pth", **form)
    read = read_checkpoint(tmp_path / "a.pth")
    for name, tensor in network.state_dict().items():
        equal(read[f"model.{name}"], tensor)
    equal(read["optimizer.state.0.exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])
    equal(read["ordered.a"], torch.ones(2))
    assert "epoch" not in read


def test_safetensors_are_read(tmp_path: Path) -> None:
    saved = {str(dtype): (torch.randn(3, 4) * 50).to(dtype) for dtype in DTYPES}
    safetensors.torch.save_file(saved, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert set(read) == set(saved)
    for name, tensor in saved.items():
        equal(read[name], tensor)


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    start=st.integers(0, 3),
    step=st.integers(1, 3),
    legacy=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_view_is_read_as_pytorch_reads_it(
    shape: list[int], start: int, step: int, legacy: bool, tmp_path: Path
) -> None:
    tensor = torch.randn([size * step + start for size in shape])
    for axis in range(len(shape)):
        tensor = tensor.transpose(0, axis)[start::step]
    torch.save({"t": tensor}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    equal(read_checkpoint(tmp_path / "a.pth")["t"], torch.load(tmp_path / "a.pth", weights_only=True)["t"])


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_no_tensor_is_refused_by_name(form: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "t": torch.ones(1)}, tmp_path / "a.pth", **form)
    with pytest.raises(InvalidArgument, match=r"argparse\.Namespace|instruction") as caught:
        read_checkpoint(tmp_path / "a.pth")
    assert caught.value.code == "CHECKPOINT_INVALID"


@pytest.mark.parametrize("form", FORMATS)
def test_each_limit_is_enforced(form: dict[str, Any], tmp_path: Path) -> None:
    saved = {"deep": {"er": {"t": torch.ones(100)}}, "wide": torch.ones(1).expand(500, 500)}
    torch.save(saved, tmp_path / "a.pth", **form)
    assert len(read_checkpoint(tmp_path / "a.pth")) == 2
    for limits in (
        CheckpointLimits(file_bytes=500),
        CheckpointLimits(tensor_bytes=900_000),
        CheckpointLimits(program_bytes=200),
        CheckpointLimits(tensors=3),
        CheckpointLimits(depth=2),
    ):
        with pytest.raises(PayloadTooLarge) as caught:
            read_checkpoint(tmp_path / "a.pth", limits)
        assert caught.value.code == "CHECKPOINT_TOO_LARGE"
    with pytest.raises(ValueError, match="depth"):
        CheckpointLimits(depth=0)


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    safetensors.torch.save_file({}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(InvalidArgument, match="no tensors"):
            read_checkpoint(tmp_path / name)


def test_a_missing_file_is_an_operating_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pth")


def test_safetensors_whose_header_begins_like_a_pickle_are_read(tmp_path: Path) -> None:
    """The header's length is padded to a multiple of 8, so one file in 32 begins with byte 0x80."""
    for padding in range(0, 256, 8):
        metadata = {"note": "x" * padding}
        data = safetensors.torch.save({"a": torch.ones(2)}, metadata)
        if data[0] == 0x80:
            break
    assert data[0] == 0x80
    (tmp_path / "a.safetensors").write_bytes(data)
    assert read_checkpoint(tmp_path / "a.safetensors")["a"].tolist() == [1.0, 1.0]
