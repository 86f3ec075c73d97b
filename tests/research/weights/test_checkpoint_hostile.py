"""A checkpoint from anywhere runs no code and costs no more than its limits."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonet.research.weights import CheckpointLimits, read_checkpoint
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, ServingError

Members = dict[str, bytes]


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


STATE = {"a.weight": torch.linspace(-2, 3, 12).reshape(3, 4), "b": torch.arange(6), "c": {"d": torch.ones(2)}}
ZIP, LEGACY = saved(STATE), saved(STATE, _use_new_zipfile_serialization=False)


def members() -> Members:
    with zipfile.ZipFile(io.BytesIO(ZIP)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(content: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_program(program: bytes) -> bytes:
    """The zip form with another description of its tensors."""
    return zipped({name: program if name.endswith("data.pkl") else data for name, data in members().items()})


def refused(data: bytes, tmp_path: Path, limits: CheckpointLimits | None = None) -> ServingError:
    path = tmp_path / "hostile.pth"
    path.write_bytes(data)
    with pytest.raises((InvalidArgument, PayloadTooLarge)) as caught:
        read_checkpoint(path, limits)
    assert caught.value.code.startswith("CHECKPOINT_")
    assert str(tmp_path) not in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


class Runs:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_code_runs(protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for call in (Runs(os.mkdir, str(witness)), Runs(eval, f"open({str(witness)!r}, 'w')")):
        program = pickle.dumps({"t": call}, protocol=protocol)
        refused(with_program(program), tmp_path)
        legacy_head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        refused(legacy_head + pickle.dumps({"little_endian": True}, 2) + program, tmp_path)
        refused(legacy_head + program, tmp_path)
        refused(program, tmp_path)
    assert not witness.exists()


def test_the_refused_name_is_shown_and_cleaned(tmp_path: Path) -> None:
    error = refused(with_program(b"\x80\x02cposix\nsystem\nU\x02id\x85R."), tmp_path)
    assert "SHORT_BINSTRING" in error.message
    error = refused(with_program(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."), tmp_path)
    assert "posix.system" in error.message
    error = refused(with_program(b"\x80\x02cpo\x1bsix\nsystem\n)R."), tmp_path)
    assert "\x1b" not in error.message


def test_members_that_leave_the_archive_are_refused(tmp_path: Path) -> None:
    for name in ("../evil", "/etc/evil", "archive/../../evil", "archive\\..\\evil"):
        refused(zipped(members() | {name: b"x"}), tmp_path)
    assert not (tmp_path.parent / "evil").exists()


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    bomb = members() | {"archive/data/0": bytes(50 << 20)}
    tracemalloc.start()
    try:
        error = refused(zipped(bomb, zipfile.ZIP_DEFLATED), tmp_path)
    finally:
        tracemalloc.stop()
    assert "compressed" in error.message


def test_storages_of_the_wrong_size_or_missing_are_refused(tmp_path: Path) -> None:
    content = members()
    storage = next(name for name in content if "/data/" in name)
    refused(zipped(content | {storage: content[storage][:-4]}), tmp_path)
    refused(zipped(content | {storage: content[storage] + bytes(4)}), tmp_path)
    refused(zipped({name: data for name, data in content.items() if name != storage}), tmp_path)


def test_a_damaged_storage_is_noticed(tmp_path: Path) -> None:
    position = ZIP.index(STATE["a.weight"].numpy().tobytes())
    refused(ZIP[:position] + bytes(8) + ZIP[position + 8 :], tmp_path)


def test_a_foreign_byte_order_is_refused(tmp_path: Path) -> None:
    content = members()
    order = next(name for name in content if name.endswith("byteorder"))
    refused(zipped(content | {order: b"big"}), tmp_path)
    refused(LEGACY.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"), tmp_path)


def test_two_descriptions_or_none_are_refused(tmp_path: Path) -> None:
    content = members()
    program = next(name for name in content if name.endswith("data.pkl"))
    refused(zipped(content | {"other/data.pkl": content[program]}), tmp_path)
    refused(zipped({name: data for name, data in content.items() if name != program}), tmp_path)


def test_an_archive_with_very_many_members_is_refused_before_it_is_read(tmp_path: Path) -> None:
    directory = 17 << 20
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, directory, 0, 0)
    tracemalloc.start()
    try:
        error = refused(b"PK\x03\x04" + bytes(directory) + end, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "members" in error.message
    assert peak < 40 << 20


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQ"


def tensor_program(offset: bytes, shape: bytes, strides: bytes) -> bytes:
    tail = b"\x89ccollections\nOrderedDict\n)RtR"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + offset + shape + strides + tail
    return b"\x80\x02}X\x01\x00\x00\x00t" + call + b"s."


def big(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def test_tensors_outside_their_storage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fine.pth"
    path.write_bytes(with_program(tensor_program(b"K\x00", b"K\x03K\x04\x86", b"K\x04K\x01\x86")))
    assert read_checkpoint(path)["t"].shape == (3, 4)
    for offset, shape, strides in (
        (b"K\x01", b"K\x03K\x04\x86", b"K\x04K\x01\x86"),
        (b"K\x00", b"K\x03K\x05\x86", b"K\x04K\x01\x86"),
        (b"K\x00", b"K\x03K\x04\x86", b"K\x06K\x01\x86"),
        (big(-1), b"K\x03K\x04\x86", b"K\x04K\x01\x86"),
        (b"K\x00", b"K\x03K\x04\x86", big(-4) + b"K\x01\x86"),
        (b"K\x00", big(-3) + b"K\x04\x86", b"K\x04K\x01\x86"),
        (big(1 << 70), b"K\x03K\x04\x86", b"K\x04K\x01\x86"),
        (b"K\x00", big(1 << 62) + big(1 << 62) + b"\x86", b"K\x00K\x00\x86"),
        (b"K\x00", b"K\x03\x85", b"K\x04K\x01\x86"),
        (b"K\x00", b"X\x01\x00\x00\x00aK\x04\x86", b"K\x04K\x01\x86"),
        (b"K\x00", b"\x88K\x04\x86", b"K\x04K\x01\x86"),
    ):
        refused(with_program(tensor_program(offset, shape, strides)), tmp_path)


def test_a_small_storage_expanded_to_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    program = tensor_program(b"K\x00", big(1 << 20) + big(1 << 20) + b"\x86", b"K\x00K\x00\x86")
    error = refused(with_program(program), tmp_path)
    assert isinstance(error, PayloadTooLarge)


def test_deep_and_cyclic_structures_are_refused(tmp_path: Path) -> None:
    refused(with_program(b"\x80\x02" + b"]" * 60_000 + b"a" * 59_999 + b"."), tmp_path)
    refused(with_program(b"\x80\x02)" + b"\x85" * 60_000 + b"."), tmp_path)
    refused(with_program(b"\x80\x02})" + b"\x85" * 60_000 + b"Ns."), tmp_path)  # as a key: must not be hashed
    refused(with_program(b"\x80\x02]q\x00h\x00a."), tmp_path)
    # Each list holds the one before it forty times: 40 ** 12 entries in a few hundred bytes.
    levels = [b"](" + (b"h" + bytes([level])) * 40 + b"eq" + bytes([level + 1]) for level in range(12)]
    refused(with_program(b"\x80\x02]q\x000" + b"0".join(levels) + b"."), tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for data in (
        b"",
        b"x",
        b"not a checkpoint at all",
        b"\x80",
        b"\x80\x02.",
        b"\x80\x02N.",
        b"PK\x03\x04",
        zipped({"a": b"b"}),
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 9) + b'{"a": 1}}',
        LEGACY[:-1],
        LEGACY[: len(LEGACY) // 2],
        ZIP[: len(ZIP) // 2],
    ):
        refused(data, tmp_path)


SAFETENSORS = safetensors.torch.save({"a": torch.ones(3, 4), "b": torch.arange(6)})


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_raise_nothing_but_the_contract(data: st.DataObject, tmp_path: Path) -> None:
    raw = bytearray(data.draw(st.sampled_from([ZIP, LEGACY, SAFETENSORS])))
    edits = st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6))
    for where, removed, added in data.draw(st.lists(edits, min_size=1, max_size=5)):
        position = int(where * len(raw))
        raw[position : position + removed] = added
    path = tmp_path / "mutated.pth"
    path.write_bytes(raw)
    try:
        tensors = read_checkpoint(path, CheckpointLimits(tensor_bytes=1 << 20))
    except ServingError as error:
        assert error.code in ("CHECKPOINT_INVALID", "CHECKPOINT_TOO_LARGE")
    else:
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 1 << 20


@given(
    program=st.lists(
        st.sampled_from([bytes([code]) for code in b"\x80.()]}tRQqhKsuaeNX\x85\x86\x87\x88\x93\x940l"]),
        max_size=40,
    ).map(b"".join)
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_raise_nothing_but_the_contract(program: bytes, tmp_path: Path) -> None:
    refused(with_program(b"\x80\x02" + program), tmp_path)
