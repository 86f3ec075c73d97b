"""``tritonclient.utils.shared_memory``, unchanged, against a gateway that serves system shared memory."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, serialize_byte_tensor
from tritonclient.utils import shared_memory as shm

from tests.support import handmade_networks
from tests.support.running_server import RunningServer, assert_no_leak, running
from tests.support.slow_requests import fresh_value

FOLDER = Path("/dev/shm")
SIZE = 4096
VALUES = np.arange(16, dtype=np.float32).reshape(1, 16)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="POSIX shared memory is no folder here")
FACES = {"http": tritonclient.http, "grpc": tritonclient.grpc}
Region = Callable[..., Any]


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A gateway that serves shared memory."""
    root = tmp_path_factory.mktemp("shared_memory")
    repository = root / "models"
    repository.mkdir()
    handmade_networks.add_identity(repository, "echo", "FP32", (-1,))
    handmade_networks.add_identity(repository, "text", "BYTES", (-1,))
    handmade_networks.add_pair(repository, "pair")
    settings = {
        "shared_memory": {"enabled": True, "max_request_bytes": 1 << 20},
        "scheduler": {"lanes": 1},
        "repository": {"poll_seconds": 0.0},
    }
    with running(repository, root / "server", settings) as started:
        yield started


class Caller:
    """A client of one face, and its module."""

    def __init__(self, name: str, server: RunningServer) -> None:
        self.name = name
        self.module: ModuleType = FACES[name]
        address = server.grpc_address if name == "grpc" else server.url.removeprefix("http://")
        self.client: Any = self.module.InferenceServerClient(address)

    def input(self, name: str, shape: tuple[int, ...], datatype: str = "FP32") -> Any:
        return self.module.InferInput(name, list(shape), datatype)

    def output(self, name: str, *place: Any) -> Any:
        made = self.module.InferRequestedOutput(name)
        if place:
            made.set_shared_memory(*place)
        return made

    def in_memory(self, name: str, shape: tuple[int, ...], *place: Any, datatype: str = "FP32") -> Any:
        made = self.input(name, shape, datatype)
        made.set_shared_memory(*place)
        return made

    def statuses(self) -> list[dict[str, Any]]:
        if self.name == "http":
            return list(self.client.get_system_shared_memory_status())
        answer = self.client.get_system_shared_memory_status(as_json=True)
        return [
            {**each, "byte_size": int(each["byte_size"]), "offset": int(each.get("offset", 0))}
            for _, each in sorted(answer.get("regions", {}).items())
        ]

    def refused(self, words: str, status: tuple[str, str], run: Callable[[], Any]) -> None:
        """``status`` is that of HTTP and that of gRPC."""
        with pytest.raises(InferenceServerException, match=words) as caught:
            run()
        assert_no_leak(str(caught.value))
        said = str(caught.value.status())
        if self.name == "grpc":
            assert said == f"StatusCode.{status[1]}"
        elif said != "None":
            assert said.startswith(status[0])


@pytest.fixture(params=list(FACES))
def caller(request: pytest.FixtureRequest, sharing: RunningServer) -> Iterator[Caller]:
    made = Caller(request.param, sharing)
    yield made
    made.client.unregister_system_shared_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        made.client.close()
        del made
        gc.collect()


@pytest.fixture
def region(caller: Caller) -> Iterator[Region]:
    """Make a shared memory object and register all of it, or not: ``region(name, size)``."""
    with contextlib.ExitStack() as stack:

        def make(name: str, size: int = SIZE, *, register: bool = True) -> Any:
            key = f"/nonet_client_{os.getpid()}_{name}"
            handle = shm.create_shared_memory_region(name, key, size, create_only=True)
            stack.callback(shm.destroy_shared_memory_region, handle)
            if register:
                caller.client.register_system_shared_memory(name, key, size)
            return handle

        yield make


def key(name: str) -> str:
    return f"/nonet_client_{os.getpid()}_{name}"


def test_inputs_and_outputs_in_shared_memory(caller: Caller, region: Region) -> None:
    given, taken = region("given"), region("taken")
    a, b = VALUES[:, :3] + fresh_value(), np.full((1, 3), 2, np.int32)
    shm.set_shared_memory_region(given, [a, b])
    answer = caller.client.infer(
        "pair",
        [
            caller.in_memory("a", a.shape, "given", 12),
            caller.in_memory("b", b.shape, "given", 12, 12, datatype="INT32"),
        ],
        outputs=[caller.output("sum", "taken", 12), caller.output("difference", "taken", 100, 64)],
    )
    np.testing.assert_array_equal(shm.get_contents_as_numpy(taken, np.float32, [1, 3]), a + b)
    np.testing.assert_array_equal(shm.get_contents_as_numpy(taken, np.float32, [1, 3], 64), a - b)
    told = answer.get_output("difference")
    if caller.name == "http":
        assert told["parameters"] == {
            "shared_memory_region": "taken",
            "shared_memory_byte_size": 12,
            "shared_memory_offset": 64,
            "binary_data_size": 0,
        }
        assert "data" not in told
    else:
        assert told.parameters["shared_memory_byte_size"].int64_param == 12
        assert list(answer.get_response().raw_output_contents) == [b"", b""]


def test_inputs_alone_and_outputs_alone(caller: Caller, region: Region) -> None:
    handle = region("one")
    a = np.full((1, 3), fresh_value(), np.float32)
    shm.set_shared_memory_region(handle, [a], offset=8)
    second = caller.input("b", (1, 3), "INT32")
    second.set_data_from_numpy(np.ones((1, 3), np.int32))
    inputs = [caller.in_memory("a", (1, 3), "one", 12, 8), second]
    answer = caller.client.infer("pair", inputs)
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + 1)
    first = caller.input("a", (1, 3))
    first.set_data_from_numpy(a)
    answer = caller.client.infer(
        "pair", [first, second], outputs=[caller.output("difference"), caller.output("sum", "one", SIZE)]
    )
    np.testing.assert_array_equal(answer.as_numpy("difference"), a - 1)
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 3]), a + 1)


def test_texts_in_shared_memory(caller: Caller, region: Region) -> None:
    texts = np.array([[b"one", b"", b"\x00" * 9]], dtype=object)
    content = serialize_byte_tensor(texts).item()
    handle = region("texts")
    shm.set_shared_memory_region(handle, [np.frombuffer(content, np.uint8)])
    given = caller.in_memory("x", texts.shape, "texts", len(content), datatype="BYTES")
    caller.client.infer("text", [given], outputs=[caller.output("y", "texts", SIZE - 512, 512)])
    found = shm.get_contents_as_numpy(handle, np.object_, [1, 3], 512)
    np.testing.assert_array_equal(found, texts)
    for size, words in (
        (len(content) - 1, "has length 9, but 8 bytes are left"),
        (len(content) + 1, "1 bytes are left after"),
        (4, "need at least"),
    ):
        bad = caller.in_memory("x", texts.shape, "texts", size, datatype="BYTES")
        caller.refused(words, ("400", "INVALID_ARGUMENT"), lambda bad=bad: caller.client.infer("text", [bad]))
    many = caller.in_memory("x", (1, 1 << 17), "texts", 1 << 19, datatype="BYTES")
    caller.refused("at most 65536", ("400", "INVALID_ARGUMENT"), lambda: caller.client.infer("text", [many]))


def test_what_is_kept_is_known_by_its_content(caller: Caller, region: Region, sharing: RunningServer) -> None:
    """Not by the name of a region, nor by where the answer goes."""

    def hits() -> int:
        return int(sharing.statistics("echo")["inference_stats"]["cache_hit"]["count"])

    handles = {name: region(name) for name in ("first", "second", "out", "elsewhere")}
    values, other = VALUES + fresh_value(), VALUES + fresh_value()

    def infer(name: str, *place: Any) -> Any:
        given = [caller.in_memory("x", VALUES.shape, name, 64)]
        return caller.client.infer("echo", given, outputs=[caller.output("y", *place)])

    shm.set_shared_memory_region(handles["first"], [values])
    shm.set_shared_memory_region(handles["second"], [values])
    infer("first", "elsewhere", 64)
    before = hits()
    infer("second", "out", 64)
    assert hits() == before + 1
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handles["out"], np.float32, [1, 16]), values)
    shm.set_shared_memory_region(handles["first"], [other])
    np.testing.assert_array_equal(infer("first").as_numpy("y"), other)
    assert hits() == before + 1


def test_regions_are_listed_and_forgotten(caller: Caller, region: Region) -> None:
    client = caller.client
    for name in ("b", "a", "with space"):
        region(name)
    rows = [{"name": n, "key": key(n), "offset": 0, "byte_size": SIZE} for n in ("a", "b", "with space")]
    assert caller.statuses() == rows
    client.get_system_shared_memory_status("with space")
    client.unregister_system_shared_memory("a")
    client.unregister_system_shared_memory("never registered")
    assert caller.statuses() == rows[1:]
    caller.refused(
        "no shared memory", ("404", "NOT_FOUND"), lambda: client.get_system_shared_memory_status("a")
    )
    client.unregister_system_shared_memory()
    assert caller.statuses() == []
    names = client.get_server_metadata()
    assert "system_shared_memory" in (names["extensions"] if caller.name == "http" else names.extensions)


def test_registrations_are_checked(caller: Caller, region: Region) -> None:
    register = caller.client.register_system_shared_memory
    region("r")
    bad = ("400", "INVALID_ARGUMENT")
    caller.refused("registered already", ("409", "ABORTED"), lambda: register("r", key("r"), 8))
    caller.refused("no name of a POSIX", bad, lambda: register("s", "/../../etc/passwd", 8))
    caller.refused("there is no shared memory object", bad, lambda: register("s", "/nobody_made_this", 8))
    caller.refused("are not in the shared memory object", bad, lambda: register("s", key("r"), SIZE + 1))
    caller.refused("are not in the shared memory object", bad, lambda: register("s", key("r"), 8, SIZE))
    caller.refused("at least 1", bad, lambda: register("s", key("r"), 0))
    link = FOLDER / f"nonet_link_{os.getpid()}"
    link.symlink_to("/etc/passwd")
    try:
        caller.refused(
            "cannot be registered", ("403", "PERMISSION_DENIED"), lambda: register("s", link.name, 8)
        )
    finally:
        link.unlink()


def test_uses_are_checked(caller: Caller, region: Region) -> None:
    handle = region("r")
    small = caller.in_memory("x", VALUES.shape, "r", 64)
    bad, unknown = ("400", "INVALID_ARGUMENT"), ("404", "NOT_FOUND")

    def infer(given: Any, *place: Any) -> Callable[[], Any]:
        return lambda: caller.client.infer("echo", [given], outputs=[caller.output("y", *place)])

    caller.refused(
        "no shared memory region 'q'", unknown, infer(caller.in_memory("x", VALUES.shape, "q", 64))
    )
    caller.refused("no shared memory region 'q'", unknown, infer(small, "q", 64))
    caller.refused(
        "64 bytes of data|60 bytes of data", bad, infer(caller.in_memory("x", VALUES.shape, "r", 60))
    )
    beyond = caller.in_memory("x", VALUES.shape, "r", 64, SIZE - 60)
    caller.refused("are not in the shared memory region", bad, infer(beyond))
    caller.refused("are not in the shared memory region", bad, infer(small, "r", 64, SIZE))
    shm.set_shared_memory_region(handle, [VALUES])
    before = bytes(shm.get_contents_as_numpy(handle, np.uint8, [SIZE]))
    caller.refused("has 64 bytes, but shared_memory_byte_size is 63", bad, infer(small, "r", 63, 512))
    assert bytes(shm.get_contents_as_numpy(handle, np.uint8, [SIZE])) == before
    region("large", 4 << 20)
    huge = caller.in_memory("x", (1, 1 << 19), "large", 2 << 20)
    caller.refused("bytes together", ("413", "RESOURCE_EXHAUSTED"), infer(huge))


def test_an_object_that_becomes_shorter_harms_nobody(caller: Caller, region: Region) -> None:
    region("shrinks", 2 * SIZE)
    given = caller.in_memory("x", VALUES.shape, "shrinks", 64, SIZE)
    plain = caller.input("x", VALUES.shape)
    plain.set_data_from_numpy(VALUES + fresh_value())
    os.truncate(FOLDER / key("shrinks")[1:], 100)
    bad = ("400", "INVALID_ARGUMENT")
    caller.refused("has become shorter", bad, lambda: caller.client.infer("echo", [given]))
    into = [caller.output("y", "shrinks", 64, SIZE)]
    caller.refused("has become shorter", bad, lambda: caller.client.infer("echo", [plain], outputs=into))
    assert caller.client.is_server_live()


def test_regions_come_and_go_while_requests_run(
    caller: Caller, region: Region, sharing: RunningServer
) -> None:
    """Every answer is right, or says that the region was not there."""
    handle = region("r")
    shm.set_shared_memory_region(handle, [VALUES])
    done = threading.Event()

    def flicker() -> None:
        other = Caller(caller.name, sharing)
        while not done.is_set():
            other.client.unregister_system_shared_memory("r")
            other.client.register_system_shared_memory("r", key("r"), SIZE)

    flickering = threading.Thread(target=flicker)
    flickering.start()
    outcomes = {"right": 0, "gone": 0}
    try:
        while min(outcomes.values()) < 5 and sum(outcomes.values()) < 3000:
            try:
                given = [caller.in_memory("x", VALUES.shape, "r", 64)]
                caller.client.infer("echo", given, outputs=[caller.output("y", "r", 64, 64)])
                outcomes["right"] += 1
            except InferenceServerException as error:
                assert "no shared memory region 'r'" in str(error)
                outcomes["gone"] += 1
    finally:
        done.set()
        flickering.join()
    assert outcomes["right"]
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 16], 64), VALUES)
    caller.client.unregister_system_shared_memory()
    assert not [each for each in sharing.process.open_files() if each.path.startswith(str(FOLDER))]


def test_cuda_memory_is_not_served(caller: Caller) -> None:
    assert not caller.client.get_cuda_shared_memory_status(
        **({"as_json": True} if caller.name == "grpc" else {})
    )
    caller.client.unregister_cuda_shared_memory()
    caller.refused(
        "shared memory is not served",
        ("400", "UNIMPLEMENTED"),
        lambda: caller.client.register_cuda_shared_memory("c", b"aGFuZGxl", 0, 8),
    )


def test_streams_use_shared_memory_too(sharing: RunningServer) -> None:
    caller = Caller("grpc", sharing)
    handle = shm.create_shared_memory_region("s", key("s"), SIZE, create_only=True)
    try:
        caller.client.register_system_shared_memory("s", key("s"), SIZE)
        shm.set_shared_memory_region(handle, [VALUES])
        answered, answers = threading.Event(), []

        def take(result: Any, error: Any) -> None:
            answers.append(error)
            answered.set()

        caller.client.start_stream(take)
        given = caller.in_memory("x", VALUES.shape, "s", 64)
        caller.client.async_stream_infer("echo", [given], outputs=[caller.output("y", "s", 64, 64)])
        assert answered.wait(30)
        caller.client.stop_stream()
        assert answers == [None]
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 16], 64), VALUES)
    finally:
        caller.client.unregister_system_shared_memory()
        caller.client.close()
        shm.destroy_shared_memory_region(handle)


@pytest.mark.parametrize("face", list(FACES))
def test_nothing_is_served_unless_it_is_switched_on(face: str, server: RunningServer) -> None:
    caller = Caller(face, server)
    off = ("400", "UNIMPLEMENTED")
    caller.refused(
        "shared memory is not served",
        off,
        lambda: caller.client.register_system_shared_memory("r", "/r", 8),
    )
    assert caller.statuses() == []
    given = caller.in_memory("x", VALUES.shape, "r", 64)
    caller.refused(
        "shared memory is not available",
        ("400", "INVALID_ARGUMENT"),
        lambda: caller.client.infer("echo_fp32", [given]),
    )
    caller.client.close()
