"""Shared memory regions: what may be registered, by whom, and what is checked again at each use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory as Object
from pathlib import Path

import pytest

from nonet.gateway.core.memory_objects import FOLDER
from nonet.gateway.core.shared_memory import RegionStatus, SharedMemory, TenantMemory
from nonet.gateway.core.upload_budget import UploadBudget
from nonet.gateway.settings.shared_memory_settings import SharedMemorySettings
from nonet.runtime.errors import (
    ClientClosed,
    Conflict,
    InsufficientStorage,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    Unavailable,
)
from nonet.runtime.oip.shared_memory import MemoryRange

SIZE = 4096

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="POSIX shared memory is no folder here")


@pytest.fixture
def shared() -> Iterator[Object]:
    """A shared memory object of SIZE bytes."""
    made = Object(create=True, size=SIZE)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def place() -> Iterator[Callable[[str], Path]]:
    """Names where nothing is yet, of the test's own, in the folder of shared memory objects."""
    made: list[Path] = []

    def path(name: str = "") -> Path:
        made.append(FOLDER / f"{name}nonet_test_{os.getpid()}_{len(made)}")
        return made[-1]

    yield path
    for each in made:
        each.unlink(missing_ok=True)


def regions(**limits: int) -> SharedMemory:
    return SharedMemory(SharedMemorySettings(**limits))


def region(shared: Object | str, name: str = "r", offset: int = 0, size: int = SIZE) -> RegionStatus:
    return RegionStatus(name, shared if isinstance(shared, str) else shared.name, offset, size)


def wanted(offset: int = 0, size: int = SIZE, name: str = "r") -> MemoryRange:
    return MemoryRange(name, offset, size, "input 'x'", "inputs[0].parameters")


def caller(found: SharedMemory, tenant: str = "", budget: int = 1 << 30) -> TenantMemory:
    return found.of(tenant, UploadBudget(budget).open())


def open_objects() -> int:
    """Descriptors of this process that are shared memory objects."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(each).startswith(str(FOLDER))
        except FileNotFoundError:
            continue
    return found


def test_a_region_is_read_and_written_at_its_offset(shared: Object) -> None:
    found = regions()
    found.register("", region(shared, offset=100, size=50))
    shared.buf[110:114] = b"abcd"
    assert bytes(caller(found).read(wanted(10, 4))) == b"abcd"
    caller(found).output(wanted(20, 4)).write(b"wxyz")
    assert bytes(shared.buf[120:124]) == b"wxyz"
    assert found.status("") == [RegionStatus("r", shared.name, 100, 50)]


def test_what_was_read_is_a_copy(shared: Object) -> None:
    found = regions()
    found.register("", region(shared))
    content = caller(found).read(wanted())
    shared.buf[0] = 7
    assert content[0] == 0


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "//", ".", "..", "/..", "../etc/passwd", "/a/b", "/../shm/x", "a/", "x\0y", "n" * 256),
        *("\N{GRINNING FACE}" * 100, "/nonet_test_that_nobody_made"),
    ],
)
def test_a_key_is_the_name_of_an_object(key: str) -> None:
    with pytest.raises(InvalidArgument, match=r"no name of a POSIX|there is no shared memory object"):
        regions().register("", region(key, size=1))


def test_slashes_before_a_key_count_for_nothing(shared: Object) -> None:
    found = regions()
    for number, slashes in enumerate(("", "/", "//")):
        found.register("", region(slashes + shared.name.lstrip("/"), f"r{number}"))


def test_only_plain_objects_are_opened(place: Callable[[str], Path], shared: Object, tmp_path: Path) -> None:
    other = tmp_path / "secret"
    other.write_bytes(bytes(SIZE))
    link, second, pipe, folder, semaphore = (
        place(name) for name in ("link_", "second_", "pipe_", "folder_", "sem.")
    )
    link.symlink_to(other)
    os.link(FOLDER / shared.name.lstrip("/"), second)
    os.mkfifo(pipe)
    folder.mkdir()
    semaphore.write_bytes(bytes(SIZE))
    before = open_objects()
    for path in (link, second, pipe, folder, semaphore):
        with pytest.raises(PermissionDenied, match="cannot be registered"):
            regions().register("", region(path.name, size=1))
    folder.rmdir()
    assert open_objects() == before


def test_only_objects_of_the_users_allowed_are_opened(shared: Object) -> None:
    stranger = SharedMemory(SharedMemorySettings(owners=(os.geteuid() + 1,)))
    with pytest.raises(PermissionDenied, match="another user"):
        stranger.register("", region(shared))


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, SIZE + 1), (1, SIZE), (SIZE, 1), (1 << 63, 1), (0, (1 << 64) - 1), (0, 0), (-1, 8), (0, -1)],
)
def test_a_region_lies_in_its_object(shared: Object, offset: int, size: int) -> None:
    with pytest.raises(InvalidArgument, match=r"not in the shared memory|at least"):
        regions().register("", region(shared, offset=offset, size=size))


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (1, 100), (100, 1), (1 << 62, 4), (SIZE - 50, 50)])
def test_a_tensor_lies_in_its_region(shared: Object, offset: int, size: int) -> None:
    """The object is larger than the region: what lies beside it is not given away."""
    found = regions()
    found.register("", region(shared, size=100))
    for use in (caller(found).read, caller(found).output):
        with pytest.raises(InvalidArgument, match="are not in the shared memory region 'r' of 100 bytes"):
            use(wanted(offset, size))


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "\0", "\x7f"])
def test_names_are_printable(shared: Object, name: str) -> None:
    with pytest.raises(InvalidArgument, match="printable"):
        regions().register("", region(shared, name))


def test_a_name_is_used_once_until_it_is_unregistered(shared: Object) -> None:
    found = regions()
    found.register("", region(shared))
    with pytest.raises(Conflict, match="registered already"):
        found.register("", region(shared, size=1))
    found.unregister("", "r")
    found.unregister("", "r")
    found.register("", region(shared, size=1))


def test_number_and_bytes_are_bounded_for_each_tenant(place: Callable[[str], Path], shared: Object) -> None:
    found = regions(max_regions=2, max_bytes=5000)
    found.register("a", region(shared, "1"))
    with pytest.raises(InsufficientStorage, match="5000 bytes together"):
        found.register("a", region(shared, "2"))
    found.register("a", region(shared, "2", size=904))
    with pytest.raises(InsufficientStorage, match="2 shared memory regions"):
        found.register("a", region(shared, "3", size=1))
    own = place("")
    own.write_bytes(bytes(10))
    found.register("b", region(own.name, "1", size=10))


def test_regions_belong_to_their_tenant(shared: Object) -> None:
    found = regions()
    found.register("a", region(shared))
    with pytest.raises(NotFound):
        found.status("b", "r")
    assert found.status("b") == []
    for use in (caller(found, "b").read, caller(found, "b").output):
        with pytest.raises(NotFound, match="no shared memory region 'r'"):
            use(wanted())
    with pytest.raises(PermissionDenied, match="another caller's"):
        found.register("b", region(shared, "mine"))
    found.unregister("b")
    found.unregister("b", "r")
    assert len(found.status("a")) == 1


def test_an_object_that_becomes_shorter_ends_no_process(place: Callable[[str], Path]) -> None:
    path = place("")
    path.write_bytes(bytes(2 * SIZE))
    found = regions()
    found.register("", region(path.name, size=2 * SIZE))
    output = caller(found).output(wanted(SIZE, SIZE))
    os.truncate(path, SIZE)
    assert len(caller(found).read(wanted(0, SIZE))) == SIZE
    with pytest.raises(InvalidArgument, match="has become shorter"):
        caller(found).read(wanted(SIZE, 4))
    with pytest.raises(InvalidArgument, match="has become shorter"):
        output.write(b"data")
    assert path.stat().st_size == SIZE


def test_what_is_in_use_may_be_unregistered(shared: Object) -> None:
    found = regions()
    before = open_objects()
    found.register("", region(shared))
    output = caller(found).output(wanted())
    found.unregister("")
    found.register("", region(shared))
    with pytest.raises(NotFound, match="no shared memory region"):
        output.write(b"data")
    assert bytes(shared.buf[:4]) == bytes(4)
    found.unregister("")
    assert open_objects() == before


def test_an_output_that_does_not_fit_is_refused(shared: Object) -> None:
    found = regions()
    found.register("", region(shared))
    with pytest.raises(InvalidArgument, match="has 5 bytes, but shared_memory_byte_size is 4"):
        caller(found).output(wanted(0, 4)).check(5)


def test_copies_are_bounded_and_accounted_for(shared: Object) -> None:
    """A few bytes of JSON must not make the server copy without end."""
    found = regions(max_request_bytes=2 * SIZE)
    found.register("", region(shared))
    request = caller(found)
    request.read(wanted())
    request.read(wanted())
    with pytest.raises(PayloadTooLarge, match=f"{2 * SIZE} bytes together"):
        request.read(wanted(0, 1))
    with pytest.raises(Unavailable, match="too many bytes"):
        caller(found, budget=SIZE - 1).read(wanted())
    budget = UploadBudget(SIZE)
    with budget.open() as hold:
        found.of("", hold).read(wanted())
        assert budget.held == SIZE
    assert budget.held == 0
    with pytest.raises(ClientClosed):
        found.of("", hold).read(wanted(0, 1))


@pytest.mark.parametrize("limits", [{"max_regions": 0}, {"max_bytes": 0}, {"max_request_bytes": 0}])
def test_limits_are_positive(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        regions(**limits)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_an_object_that_may_not_be_written_is_refused(shared: Object) -> None:
    (FOLDER / shared.name.lstrip("/")).chmod(0o400)
    with pytest.raises(PermissionDenied, match="read and write"):
        regions().register("", region(shared))


def test_an_end_waits_for_those_who_read(shared: Object) -> None:
    """Many threads read while regions come and go: each gets all of it or is told that it is gone, and the
    object is open no longer when all are done."""
    found = regions()
    before = open_objects()
    shared.buf[:] = b"x" * SIZE
    over = threading.Event()
    strange: list[object] = []

    def read() -> None:
        while not over.is_set():
            try:
                if bytes(caller(found).read(wanted())) != b"x" * SIZE:
                    strange.append("other content")
            except NotFound:
                continue
            except Exception as error:
                strange.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for each in readers:
        each.start()
    for _ in range(200):
        found.register("", region(shared))
        found.unregister("")
    over.set()
    for each in readers:
        each.join()
    assert strange == []
    assert open_objects() == before
