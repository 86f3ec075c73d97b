"""Shared memory regions in the hands of other keys, and requests about them that make no sense."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

from tests.support import handmade_networks
from tests.support.running_server import RunningServer, assert_no_leak, running

SIZE = 4096
REGION = "/v2/systemsharedmemory/region/own"

pytestmark = pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="POSIX shared memory is no folder here")


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedMemory]:
    made = SharedMemory(create=True, size=SIZE)
    yield made
    made.close()
    made.unlink()


@pytest.fixture(scope="module")
def sharing(shared: SharedMemory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A gateway that serves shared memory to two keys; that of Ann has registered a region."""
    root = tmp_path_factory.mktemp("shared_memory")
    repository = root / "models"
    repository.mkdir()
    handmade_networks.add_identity(repository, "echo", "FP32", (-1,))
    settings = {"shared_memory": {"enabled": True, "max_regions": 2}, "auth": {"keys": KEYS}}
    with running(repository, root / "server", settings) as started:
        body = {"key": shared.name, "byte_size": SIZE}
        assert started.http.post(f"{REGION}/register", json=body, headers=ANN).status_code == 200
        yield started


KEYS = {"ann": "key-of-ann-0123456789", "bob": "key-of-bob-0123456789"}
ANN, BOB = ({"Authorization": f"Bearer {each}"} for each in KEYS.values())
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
PLACE = {"shared_memory_region": "own", "shared_memory_byte_size": 8}
INFER = "/v2/models/echo/infer"


def test_regions_belong_to_the_key_that_registered_them(sharing: RunningServer, shared: SharedMemory) -> None:
    http, body = sharing.http, {"key": shared.name, "byte_size": SIZE}
    infer = {"inputs": [{**TENSOR, "parameters": PLACE}]}
    assert http.post(f"{REGION}/register", json=body).status_code == 401
    refusal = http.post(f"{REGION}/register", json=body, headers=BOB)
    assert (refusal.status_code, "another caller's" in refusal.text) == (403, True)
    assert http.get("/v2/systemsharedmemory/status", headers=BOB).json() == []
    assert http.get(f"{REGION}/status", headers=BOB).status_code == 404
    assert http.post(INFER, json=infer, headers=BOB).status_code == 404
    assert http.post(f"{REGION}/unregister", headers=BOB).status_code == 200
    assert http.post("/v2/systemsharedmemory/unregister", headers=BOB).status_code == 200
    reply = http.post(INFER, json=infer, headers=ANN)
    assert reply.json()["outputs"][0]["data"] == [0.0, 0.0]


@pytest.mark.parametrize(
    "parameters",
    [
        {"shared_memory_region": "own"},
        {"shared_memory_byte_size": 8},
        {"shared_memory_offset": 0},
        {**PLACE, "shared_memory_region": ""},
        {**PLACE, "shared_memory_region": 5},
        {**PLACE, "shared_memory_byte_size": -8},
        {**PLACE, "shared_memory_byte_size": "8"},
        {**PLACE, "shared_memory_byte_size": 8.0},
        {**PLACE, "shared_memory_byte_size": True},
        {**PLACE, "shared_memory_offset": -1},
        {**PLACE, "shared_memory_offset": (1 << 64) - 1},
        {**PLACE, "binary_data_size": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_places_that_make_no_sense_are_refused(
    sharing: RunningServer, side: str, parameters: dict[str, Any]
) -> None:
    if side == "outputs" and "binary_data_size" in parameters:
        pytest.skip("says nothing of an output")
    body: dict[str, Any] = {"inputs": [{**TENSOR, "parameters": parameters}]}
    if side == "outputs":
        body = {"inputs": [{**TENSOR, "data": [1, 2]}], "outputs": [{"name": "y", "parameters": parameters}]}
    reply = sharing.http.post(INFER, json=body, headers=ANN)
    assert reply.status_code == 400, reply.text
    assert "shared" in reply.text
    assert_no_leak(reply.text)


def test_data_beside_a_place_is_refused(sharing: RunningServer) -> None:
    body = {"inputs": [{**TENSOR, "parameters": PLACE, "data": [1, 2]}]}
    reply = sharing.http.post(INFER, json=body, headers=ANN)
    assert (reply.status_code, "send one of them" in reply.text) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": 5, "byte_size": 8},
        {"key": "k"},
        {"key": "k", "byte_size": "8"},
        {"key": "k", "byte_size": True},
        {"key": "k", "byte_size": 8, "offset": None},
        {"key": "k", "byte_size": 8, "offset": 0.5},
        {"key": "k", "byte_size": 8, "device_id": 0},
        {"key": "../../etc/passwd", "byte_size": 8},
        {"key": "\u0000", "byte_size": 8},
    ],
    ids=str,
)
def test_registrations_that_make_no_sense_are_refused(sharing: RunningServer, body: dict[str, Any]) -> None:
    reply = sharing.http.post("/v2/systemsharedmemory/region/other/register", json=body, headers=ANN)
    assert reply.status_code == 400, reply.text
    assert_no_leak(reply.text)


def test_many_tensors_in_one_range_are_copied_only_so_often(
    start_server: Callable[..., RunningServer], own_repository: Path, shared: SharedMemory
) -> None:
    """A request of a few kilobytes names the same bytes many times: what it may make the server copy ends."""
    handmade_networks.add_identity(own_repository, "echo", "FP32", (-1,))
    started = start_server(own_repository, {"shared_memory": {"enabled": True, "max_request_bytes": 65536}})
    body = {"key": shared.name, "byte_size": SIZE}
    assert started.http.post(f"{REGION}/register", json=body).status_code == 200
    whole = {**PLACE, "shared_memory_byte_size": SIZE}
    tensor = {"datatype": "FP32", "shape": [1, SIZE // 4], "parameters": whole}
    inputs = [{"name": f"x{number}", **tensor} for number in range(17)]
    reply = started.http.post(INFER, json={"inputs": inputs})
    assert (reply.status_code, "65536 bytes together" in reply.text) == (413, True)
    assert started.http.post(INFER, json={"inputs": [{"name": "x", **tensor}]}).status_code == 200
